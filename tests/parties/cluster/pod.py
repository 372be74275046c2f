"""A pod as a kubelet runs it."""

import os
import shutil
import sys
import threading
import time
import traceback

from . import api, volumes
from .container import Container, now
from .network import NODE, Network

KNOWN = {
    "volumes",
    "containers",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "dnsPolicy",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "nodeName",
    "securityContext",
    "schedulerName",
    "tolerations",
    "priority",
    "enableServiceLinks",
    "preemptionPolicy",
    "topologySpreadConstraints",
    "affinity",
    "nodeSelector",
    "priorityClassName",
}

# How often a kubelet brings mounted Secrets and ConfigMaps up to date, here sooner.
REFRESH = 20


def image_name(image):
    """An image without its registry and digest."""
    host, _, rest = image.split("@")[0].partition("/")
    return rest if rest and ("." in host or ":" in host) else image.split("@")[0]


class Pod(threading.Thread):
    """Runs a pod from its object until it is deleted, and writes its status."""

    def __init__(self, item, images, root, logs):
        super().__init__(name=item["metadata"]["name"], daemon=True)
        self.item, self.spec = item, item["spec"]
        self.namespace, self.name = api.key(item)
        self.uid = item["metadata"]["uid"]
        self.images, self.logs = images, logs
        self.folder = os.path.join(root, self.uid)
        self.deleted = threading.Event()
        self.containers = []
        self.volumes = {}
        self.network = None
        self.began = now()
        self.conditions = {}
        self.lock = threading.Lock()

    def note(self, text):
        """A line in the node's log."""
        print(f"{time.strftime('%H:%M:%S')} {self.namespace}/{self.name}: {text}", file=sys.stderr, flush=True)

    def path(self, below=""):
        """Its path at the API server."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}{below}"

    def run(self):
        """The life of the pod."""
        try:
            self._live()
            self._end()
        except Exception as error:  # The node outlives a pod that it cannot run.
            self.note(traceback.format_exc())
            self.report(phase="Failed", reason="NotSupported", message=str(error))
            self.deleted.wait()
        finally:
            self._remove()

    def _live(self):
        unknown = set(self.spec) - KNOWN
        if unknown:
            raise ValueError(f"of a pod's spec, {sorted(unknown)} are not known here")
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, "resolv.conf"), "w") as file:
            file.write(f"search {self.namespace}.svc.cluster.local svc.cluster.local cluster.local\n")
            file.write("nameserver 10.96.0.10\noptions ndots:5\n")
        self.network = Network()
        for spec in self.spec["containers"]:
            log = os.path.join(self.logs, f"{self.namespace}.{self.name}.{spec['name']}.log")
            self.containers.append(Container(self, spec, self.images[image_name(spec["image"])], log))
        self.report()
        while not self._placed():
            if self.deleted.wait(1):
                return
        threads = [threading.Thread(target=container.run, daemon=True) for container in self.containers]
        for thread in threads:
            thread.start()
        while not self.deleted.wait(REFRESH):
            self._placed()

    def _placed(self):
        try:
            self.volumes = volumes.place(self, os.path.join(self.folder, "volumes"))
            return True
        except (volumes.Waiting, api.ApiError, OSError) as error:
            self.note(f"volumes: {error}")
            return bool(self.volumes)

    def _end(self):
        grace = self.item["metadata"].get("deletionGracePeriodSeconds") or 0
        self.note(f"is deleted, grace {grace} s")
        for container in self.containers:
            container.stopping.set()
        threads = [threading.Thread(target=container.end, args=(grace,)) for container in self.containers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _remove(self):
        for container in self.containers:
            container.kill()
        if self.network:
            self.network.remove()
        # Its mounts went with its processes.
        shutil.rmtree(self.folder, ignore_errors=True)
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while True:
            try:
                api.unless_gone("DELETE", self.path(), body)
                return
            except (OSError, api.ApiError):
                time.sleep(1)

    def condition(self, kind, value):
        """Sets a condition; the time stays where the value does."""
        status = "True" if value else "False"
        if self.conditions.get(kind, {}).get("status") != status:
            self.conditions[kind] = {"type": kind, "status": status, "lastTransitionTime": now()}

    def ready(self):
        """Whether all containers are."""
        return bool(self.containers) and all(container.ready for container in self.containers)

    def report(self, phase=None, reason=None, message=""):
        """Writes the status. A server that is away is told later, by the next change or the node's round."""
        with self.lock:
            ready = self.ready() and not self.deleted.is_set()
            for kind in ("PodScheduled", "PodReadyToStartContainers", "Initialized"):
                self.condition(kind, True)
            for kind in ("ContainersReady", "Ready"):
                self.condition(kind, ready)
            running = any("running" in container.state for container in self.containers)
            status = {
                "phase": phase or ("Running" if running else "Pending"),
                "startTime": self.began,
                "hostIP": NODE,
                "hostIPs": [{"ip": NODE}],
                "conditions": list(self.conditions.values()),
                "containerStatuses": [container.status() for container in self.containers],
            }
            if reason:
                status["reason"], status["message"] = reason, message
            if self.network:
                status["podIP"] = self.network.address
                status["podIPs"] = [{"ip": self.network.address}]
            body = {"metadata": {"uid": self.uid}, "status": status}
            try:
                api.unless_gone("PATCH", self.path("/status"), body, api.MERGE)
                self.told = True
            except (OSError, api.ApiError) as error:
                self.told = False
                self.note(f"status: {error}")

    told = True
