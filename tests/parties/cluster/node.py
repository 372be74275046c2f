"""The node: scheduler and kubelet for all pods."""

import threading
import time

from . import api
from .network import NODE
from .pod import Pod

LARGE = {"cpu": "256", "memory": "1Ti", "pods": "500", "nvidia.com/gpu": "64"}


class Node:
    """Binds every pod to the one node and runs it."""

    def __init__(self, images, root, logs):
        self.images, self.root, self.logs = images, root, logs
        self.pods = {}
        self.lock = threading.Lock()
        self._register()
        self.watch = api.Watched("/api/v1/pods", self._changed)
        threading.Thread(target=self._round, daemon=True).start()

    def _register(self):
        labels = {"kubernetes.io/hostname": "node", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        api.unless_gone("POST", "/api/v1/nodes", {"metadata": {"name": "node", "labels": labels}})
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
        ready.update(lastHeartbeatTime=now, lastTransitionTime=now)
        addresses = [{"type": "InternalIP", "address": NODE}]
        status = {"capacity": LARGE, "allocatable": LARGE, "addresses": addresses, "conditions": [ready]}
        api.request("PATCH", "/api/v1/nodes/node/status", {"status": status}, "application/strategic-merge-patch+json")

    def _changed(self, kind, item):
        metadata = item["metadata"]
        if kind == "DELETED":
            pod = self.pods.pop(metadata["uid"], None)
            if pod:
                pod.deleted.set()
            return
        if not item["spec"].get("nodeName"):
            threading.Thread(target=self._bind, args=(item,), daemon=True).start()
            return
        with self.lock:
            pod = self.pods.get(metadata["uid"])
            if pod is None and item.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                pod = self.pods[metadata["uid"]] = Pod(item, self.images, self.root, self.logs)
                pod.start()
        if pod:
            pod.item = item
            if "deletionTimestamp" in metadata:
                pod.deleted.set()

    def _bind(self, item):
        namespace, name = api.key(item)
        target = {"apiVersion": "v1", "kind": "Node", "name": "node"}
        metadata = {"name": name, "uid": item["metadata"]["uid"]}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/binding"
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        while True:
            try:
                api.unless_gone("POST", path, body)
                return
            except OSError:
                time.sleep(1)

    def _round(self):
        """Tells again what an API server that was away has not heard."""
        while True:
            time.sleep(2)
            for pod in list(self.pods.values()):
                if not pod.told:
                    pod.report()

    def of(self, namespace, prefix=""):
        """The pods of a namespace that are not deleted, the oldest first."""
        return [
            pod
            for pod in list(self.pods.values())
            if pod.namespace == namespace and pod.name.startswith(prefix) and not pod.deleted.is_set()
        ]
