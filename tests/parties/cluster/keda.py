"""KEDA as its own manifests install it."""

import subprocess

from . import api
from .container import Image

PROGRAMS = {"/keda": "operator", "/keda-adapter": "adapter", "/keda-admission-webhooks": "webhooks"}
IMAGES = {
    "kedacore/keda:main": "/keda",
    "kedacore/keda-metrics-apiserver:main": "/keda-adapter",
    "kedacore/keda-admission-webhooks:main": "/keda-admission-webhooks",
}


def images(programs):
    """The images that KEDA's manifests name."""
    return {name: Image({path: programs[f"keda-{PROGRAMS[path]}"]}, [path], user=1000) for name, path in IMAGES.items()}


def install(control, source, wait):
    """Applies the manifests of the module at `source`, and returns when KEDA serves metrics and its webhook answers."""
    text = subprocess.run(
        ["kubectl", "kustomize", f"{source}/config/default"], check=True, capture_output=True, text=True
    ).stdout
    # Definitions come before what they define.
    control.kubectl("apply", "--server-side", "-f", "-", text=text)
    for name in ("keda-operator", "keda-metrics-apiserver", "keda-admission"):
        control.kubectl("-n", "keda", "rollout", "status", f"deployment/{name}", f"--timeout={wait}s")
    control.kubectl(
        "wait", "apiservice/v1beta1.external.metrics.k8s.io", "--for=condition=Available", f"--timeout={wait}s"
    )


def ready(namespace):
    """Whether KEDA says that the ScaledObject works."""
    item = api.get(f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects/intentd")
    conditions = (item or {}).get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
