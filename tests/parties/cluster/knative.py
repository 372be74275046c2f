"""Knative Serving as its own manifests install it, with the stand-in's ingress."""

import glob
import os

from .container import Image

PROGRAMS = ("activator", "autoscaler", "controller", "webhook", "queue")
PATH = "knative.dev/serving/cmd"

# The parts of the module's folder `config/core`, in the order in which they are applied. Its Deployments come with
# autoscalers of their own, which want metrics of the node.
PARTS = (
    "100-namespace.yaml",
    "200-*.yaml",
    "200-roles/*.yaml",
    "300-*.yaml",
    "300-resources/*.yaml",
    "configmaps/*.yaml",
)
LATE = ("deployments/*r.yaml", "deployments/webhook.yaml", "webhooks/*.yaml", "999-cache.yaml")


def images(programs):
    """The images that Knative's manifests name."""
    return {
        f"{PATH}/{name}": Image({f"/ko-app/{name}": programs[f"knative-{name}"]}, [f"/ko-app/{name}"])
        for name in PROGRAMS
    }


def text(root, patterns):
    """Manifests of a folder. Knative does not look up the tags of images that are called dev.local."""
    found = []
    for pattern in patterns:
        for path in sorted(glob.glob(os.path.join(root, pattern))):
            with open(path) as file:
                found.append(file.read().replace(f"ko://{PATH}", f"dev.local/{PATH}"))
    return "\n---\n".join(found)


def install(control, modules, wait):
    """Applies the manifests, and returns when all parts are ready. `modules` has the folders of Knative's modules."""
    core = os.path.join(modules["serving"], "config/core")

    def apply(what):
        control.kubectl("apply", "--server-side", "-f", "-", text=what)

    apply(text(core, PARTS[:1]))
    definitions = text(os.path.join(modules["networking"], "config"), ("*.yaml",)) + "\n---\n"
    apply(definitions + text(os.path.join(modules["caching"], "config"), ("image.yaml",)))
    apply(text(core, PARTS))
    control.kubectl("wait", "--for=condition=Established", "--all", "crd", f"--timeout={wait}s")
    apply(text(core, LATE))
    for name in ("activator", "autoscaler", "controller", "webhook"):
        control.kubectl("-n", "knative-serving", "rollout", "status", f"deployment/{name}", f"--timeout={wait}s")
