"""Does the stand-in for nodes do what a cluster does? Each check is one that a simpler stand-in fails."""

import os
import socket
import time
import urllib.error
import urllib.request

from . import api, services

NAMESPACE = "standin"
WAIT = 60


def until(what, holds, limit=WAIT):
    """Waits until something holds; raises AssertionError when it does not in time."""
    end = time.monotonic() + limit
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.2)


class Checks:
    """The checks: every method whose name begins with `check_`."""

    def __init__(self, cluster):
        self.cluster = cluster
        api.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
        until("no service account", lambda: api.get(account) is not None)

    def pod(self, name, script, container=None, **spec):
        """Creates a pod that runs a script with sh."""
        container = {
            "name": "main",
            "image": "intentd:latest",
            "command": ["/bin/sh", "-c", script],
            **(container or {}),
        }
        body = {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [container], **spec}}
        api.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", body)

    def status(self, name):
        """The status of a pod, empty when it is gone."""
        return (api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}") or {}).get("status", {})

    def container(self, name):
        """The status of its container."""
        return (self.status(name).get("containerStatuses") or [{}])[0]

    def log(self, name):
        """What it has written so far."""
        path = os.path.join(self.cluster.control.logs, f"{NAMESPACE}.{name}.main.log")
        if not os.path.exists(path):
            return ""
        with open(path) as file:
            return file.read()

    def gone(self, name):
        """Returns the seconds until a pod is gone."""
        began = time.monotonic()
        until(f"{name} is still there", lambda: not self.status(name))
        return time.monotonic() - began

    def service(self, name, port):
        """Creates a Service for the pods with this name as label, and returns its address."""
        spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": port}]}
        path = f"/api/v1/namespaces/{NAMESPACE}/services"
        return api.request("POST", path, {"metadata": {"name": name}, "spec": spec})["spec"]["clusterIP"]

    def check_rights(self):
        """User, capabilities and a root that cannot be written are as the spec says."""
        context = {"runAsUser": 65532, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
        context["capabilities"] = {"drop": ["ALL"]}
        script = (
            "id -u; grep -E 'Cap(Prm|Bnd)|NoNewPrivs' /proc/self/status; touch /tmp/new || echo read-only; sleep 1000"
        )
        self.pod("rights", script, {"securityContext": context})
        until("no output", lambda: "read-only" in self.log("rights"))
        words = self.log("rights").split()
        assert words[0] == "65532", words
        assert words.count("0000000000000000") == 2 and "1" in words, words

    def check_volumes(self):
        """A ConfigMap arrives as files and as environment, and a change of it arrives too."""
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
        api.request("POST", path, {"metadata": {"name": "settings"}, "data": {"WORD": "first"}})
        container = {
            "envFrom": [{"configMapRef": {"name": "settings"}}],
            "env": [{"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
        }
        script = "echo $WORD $ADDRESS; while sleep 0.5; do cat /settings/WORD; done"
        self.pod("volumes", script, container, volumes=[{"name": "settings", "configMap": {"name": "settings"}}])
        until("not told", lambda: "first 10.200." in self.log("volumes"))
        api.request("PATCH", f"{path}/settings", {"data": {"WORD": "second"}}, api.MERGE)
        until("not brought up to date", lambda: "second" in self.log("volumes"))

    def check_waits(self):
        """A pod whose Secret is missing does not start until it is there."""
        volume = {"name": "secret", "secret": {"secretName": "late"}}
        self.pod("waits", "echo began; sleep 1000", volumes=[volume])
        time.sleep(3)
        assert "began" not in self.log("waits")
        api.request("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": "late"}, "data": {}})
        until("does not start", lambda: "began" in self.log("waits"))

    def check_readiness(self):
        """A pod is an endpoint while it is ready, and its Service resets connections when there is none."""
        probe = {"httpGet": {"path": "/readyz", "port": 9100}, "periodSeconds": 1, "failureThreshold": 1}
        address = self.service("ready", 8080)
        until("no listener", lambda: self._connects(address))
        assert self._get(address) is None, "an answer without a pod"
        script = "sleep 6; exec /opt/intentd/bin/intentd --drain-timeout 3s --lame-duck 2s"
        self.pod("ready", script, {"readinessProbe": probe})
        time.sleep(3)
        assert not self.cluster.services.endpoints(NAMESPACE, "ready"), "an endpoint before it is ready"
        until("no answer", lambda: self._get(address) == "PlayMusic")
        api.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/ready", {"gracePeriodSeconds": 30})
        until("an endpoint while it ends", lambda: not self.cluster.services.endpoints(NAMESPACE, "ready"), 10)
        assert self.status("ready"), "the pod was gone before its endpoint"

    def _connects(self, address):
        try:
            socket.create_connection((address, 80), 2).close()
        except OSError:
            return False
        return True

    def _get(self, address):
        try:
            with urllib.request.urlopen(f"http://{address}/predict?query=music", timeout=5) as response:
                return response.read().decode()
        except OSError:
            return None

    def check_liveness(self):
        """A container whose liveness fails is started again; so is one that ends."""
        probe = {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 2}
        self.pod("dead", "trap 'exit 3' TERM; while :; do sleep 0.1; done", {"livenessProbe": probe})
        until("not started again", lambda: self.container("dead").get("restartCount", 0) >= 1)
        assert self.container("dead")["lastState"]["terminated"]["exitCode"] == 3
        self.pod("ends", "exit 5")
        until("not started again", lambda: self.container("ends").get("restartCount", 0) >= 1)
        assert self.container("ends")["lastState"]["terminated"]["exitCode"] == 5

    def check_end(self):
        """The preStop hook comes before SIGTERM, and SIGKILL after the grace."""
        script = "trap 'echo asked' TERM; while :; do sleep 0.1; done"
        self.pod("stubborn", script, {"lifecycle": {"preStop": {"sleep": {"seconds": 2}}}})
        until("not running", lambda: "running" in self.container("stubborn").get("state", {}))
        time.sleep(1)
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/stubborn"
        api.request("DELETE", path, {"gracePeriodSeconds": 6})
        time.sleep(1)
        assert "asked" not in self.log("stubborn"), "SIGTERM came before the hook had ended"
        took = 1 + self.gone("stubborn")
        assert "asked" in self.log("stubborn") and 5 < took < 20, took

    def check_unknown(self):
        """A spec with something that the stand-in does not do is refused, not run without it."""
        self.pod("unknown", "sleep 1000", initContainers=[{"name": "first", "image": "intentd:latest"}])
        until("accepted", lambda: self.status("unknown").get("phase") == "Failed")
        assert "initContainers" in self.status("unknown").get("message", ""), self.status("unknown")

    def check_dns(self):
        """Names of Services are answered, others are not, and the DNS can be broken in two ways."""
        self.service("named", 80)
        names = self.cluster.services
        until("not known", lambda: names.addresses(["named", NAMESPACE, "svc", "cluster", "local"]))
        name = b"\x05named\x07standin\x03svc\x07cluster\x05local\x00"
        query = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x01\x00\x01"
        good = services.answer(names, query)
        assert good[3] & 15 == 0 and good[7] == 1, good
        assert services.answer(names, query.replace(b"named", b"namex"))[3] & 15 == 3
        names.dns = "fail"
        try:
            assert services.answer(names, query)[3] & 15 == 2
        finally:
            names.dns = "answer"


def run(cluster, _results):
    """Runs all checks; returns what is wrong."""
    checks, faults = Checks(cluster), []
    for name in dir(checks):
        if not name.startswith("check_"):
            continue
        try:
            getattr(checks, name)()
        except (AssertionError, api.ApiError, urllib.error.URLError) as error:
            faults.append(f"{name}: {error!r}")
    return faults
