"""What Knative's autoscaler makes of requests a second, with the target that the servers themselves recommend."""

import time

from . import api
from .load import Load
from .scaling import Run, finish
from .workload import SETTINGS, Workload, render

NAMESPACE = "k-rps"
LIMIT = 240


class Service(Workload):
    """The overlay `knative`; a workload is its latest revision."""

    def __init__(self, cluster):
        self.control, self.node, self.namespace = cluster.control, cluster.node, NAMESPACE
        self.revision = None
        self.deployments = api.Watched(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments")

    def apply(self, target):
        """Makes a revision with a target, and returns when it is the one that serves."""
        self.target = target
        before = self.revision
        env = "/spec/template/spec/containers/0/env/-"
        changes = [
            {"op": "add", "path": env, "value": {"name": name, "value": value}} for name, value in SETTINGS.items()
        ]
        annotations = "/spec/template/metadata/annotations/autoscaling.knative.dev~1"
        changes.append({"op": "add", "path": f"{annotations}target", "value": str(target)})
        # What a server is to leave free is in the target already.
        changes.append({"op": "add", "path": f"{annotations}target-utilization-percentage", "value": "100"})
        text = render("knative", NAMESPACE, [("Service", "intentd", changes)], settings={}, image="dev.local/intentd")
        self.control.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)
        end = time.monotonic() + LIMIT
        while self.latest() in (None, before):
            if time.monotonic() > end:
                raise SystemExit(f"{NAMESPACE}: the Knative Service is not ready")
            time.sleep(1)
        self.revision = self.latest()

    def latest(self):
        """The name of the revision that serves."""
        item = api.get(f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}/services/intentd") or {}
        return item.get("status", {}).get("latestReadyRevisionName")

    def counts(self):
        item = self.deployments.objects.get((NAMESPACE, f"{self.revision}-deployment"))
        if item is None:
            return 0, 0
        return item["spec"]["replicas"], item.get("status", {}).get("readyReplicas", 0)

    def share(self):
        """What the KPA takes a replica to be worth, in requests a second."""
        return self.target

    def load(self):
        """Load as Knative's ingress sends it to the revision."""
        headers = [f"Knative-Serving-Namespace: {NAMESPACE}", f"Knative-Serving-Revision: {self.revision}"]
        return Load(NAMESPACE, self.revision, "http", headers)


def run(cluster, results):
    """Learns a server's capacity with a first revision, and runs all phases with a second one."""
    service = Service(cluster)
    service.apply(10)
    load = service.load()
    load.tell(2)
    time.sleep(45)
    share = Workload.share(service)
    load.tell(0)
    service.apply(round(share, 2))
    return finish([Run(service, "kpa", results, service.load(), knows_demand=False)], results, "kpa")
