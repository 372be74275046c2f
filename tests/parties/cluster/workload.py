"""The project's overlays as a team applies them: by a kustomization of its own, in a namespace of its own."""

import base64
import json
import os
import re
import subprocess
import tempfile
import time
import urllib.request

from . import api
from .control import Keys

DEPLOY = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../../deploy"))

# Each replica is to use 1 % of its capacity: several replicas' worth of load then fit on two cores.
SETTINGS = {"INTENTD_TARGET_UTILIZATION": "1", "INTENTD_THREADS": "1"}


def render(overlay, namespace, patches=(), settings=SETTINGS, image="intentd"):
    """An overlay's manifests as text. `patches` are (kind, name, JSON patch); the settings are for Deployments."""
    with tempfile.TemporaryDirectory() as folder:
        base = os.path.relpath(os.path.join(DEPLOY, "overlays", overlay), os.path.realpath(folder))
        changes = [
            {"op": "add", "path": f"{ENV}/-", "value": {"name": name, "value": value}}
            for name, value in settings.items()
        ]
        patches = [("Deployment", "intentd", changes), *patches]
        listed = [
            {"target": {"kind": kind, "name": name}, "patch": json.dumps(patch)}
            for kind, name, patch in patches
            if patch
        ]
        with open(os.path.join(folder, "kustomization.yaml"), "w") as file:
            json.dump({"resources": [base], "patches": listed, "images": [{"name": "intentd", "newName": image}]}, file)
        line = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", folder]
        text = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    # Names of the namespace stand in addresses too, where each overlay puts its own.
    return re.sub(r"\bintents\b", namespace, text)


ENV = "/spec/template/spec/containers/0/env"


def documents(text):
    """The documents of a text, each with its kind."""
    for document in text.split("\n---\n"):
        yield re.search(r"^kind: (\w+)$", document, re.MULTILINE)[1], document


class Workload:
    """One overlay in one namespace."""

    def __init__(self, control, node, namespace, text):
        self.control, self.node, self.namespace = control, node, namespace
        secured = [document for kind, document in documents(text) if kind == "Certificate"]
        if secured:
            self._certificates()
            # cert-manager is no party here: its certificates are made by openssl.
            text = "\n---\n".join(
                document for kind, document in documents(text) if kind not in ("Certificate", "Issuer")
            )
        control.apply(text)
        self.deployments = api.Watched(f"/apis/apps/v1/namespaces/{namespace}/deployments")
        self.deployments.listed.wait()

    def _certificates(self):
        namespace = self.namespace
        keys = Keys(os.path.join(self.control.folder, f"keys-{namespace}"))
        keys.signed(
            "server",
            "ca",
            "scaler",
            f"DNS:intentd-scaler.{namespace}.svc,DNS:intentd-scaler.{namespace}.svc.cluster.local",
        )
        keys.signed("client", "ca", "keda")
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace, "labels": labels}})
        for name, pair in (("intentd-scaler-tls", "server"), ("keda-scaler-client", "client")):
            data = {}
            for entry, path in (("ca.crt", "ca.crt"), ("tls.crt", f"{pair}.crt"), ("tls.key", f"{pair}.key")):
                with open(keys[path], "rb") as file:
                    data[entry] = base64.b64encode(file.read()).decode()
            body = {"metadata": {"name": name}, "type": "kubernetes.io/tls", "data": data}
            api.request("POST", f"/api/v1/namespaces/{namespace}/secrets", body)

    def counts(self):
        """Replicas that the Deployment asks for, and those that are ready."""
        item = self.deployments.objects.get((self.namespace, "intentd"))
        return item["spec"]["replicas"], item.get("status", {}).get("readyReplicas", 0)

    def replicas(self):
        """What each replica that answers says at `/autoscaling`."""
        found = []
        for pod in self.node.of(self.namespace, "intentd-"):
            if pod.item["metadata"]["labels"].get("app") != "intentd" or not pod.ready():
                continue
            try:
                with urllib.request.urlopen(f"http://{pod.network.address}:9100/autoscaling", timeout=2) as response:
                    found.append(json.load(response))
            except (OSError, ValueError):
                continue
        return found

    def demand(self):
        """The demand of all replicas that answer."""
        return round(sum(replica["demand_replicas"] for replica in self.replicas()), 3)

    def share(self):
        """Requests a second that one replica takes, by what the replicas themselves say."""
        replicas = self.replicas()
        return sum(replica["capacity_rps"] for replica in replicas) / len(replicas) / 100

    def wait(self, ready=1, limit=180):
        """Returns when so many replicas are ready."""
        end = time.monotonic() + limit
        while self.counts()[1] < ready:
            if time.monotonic() > end:
                raise SystemExit(f"{self.namespace}: {self.counts()} replicas are wanted and ready, of {ready}")
            time.sleep(0.5)
