"""Prometheus, and a stand-in for prometheus-adapter, which is in no registry of packages."""

import json
import os
import re
import ssl
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .network import NODE

METRIC = "intentd_autoscaling_demand_replicas"
PORT = 9090
ADAPTER = 7443

POD_MONITOR = os.path.join(os.path.dirname(__file__), "../../../deploy/prometheus/podmonitor.yaml")

CONFIG = """
global: {scrape_interval: %s}
scrape_configs:
  - job_name: pods
    file_sd_configs: [{files: ["%s"], refresh_interval: 1s}]
"""

# As the Prometheus Operator calls it; the endpoints are processes of the node.
SERVICES = """
apiVersion: v1
kind: Namespace
metadata: {name: monitoring}
---
apiVersion: v1
kind: Service
metadata: {name: prometheus-operated, namespace: monitoring}
spec: {ports: [{name: http, port: 9090}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: prometheus, namespace: monitoring, labels: {kubernetes.io/service-name: prometheus-operated}}
addressType: IPv4
ports: [{name: http, port: 9090}]
endpoints: [{addresses: ["%(node)s"], conditions: {ready: true}}]
---
apiVersion: v1
kind: Service
metadata: {name: adapter, namespace: monitoring}
spec: {ports: [{name: https, port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: adapter, namespace: monitoring, labels: {kubernetes.io/service-name: adapter}}
addressType: IPv4
ports: [{name: https, port: %(adapter)d}]
endpoints: [{addresses: ["%(node)s"], conditions: {ready: true}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.custom.metrics.k8s.io}
spec:
  group: custom.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: adapter, namespace: monitoring}
"""


def interval():
    """How often a pod is scraped, by the project's own manifest."""
    with open(POD_MONITOR) as file:
        return re.search(r"^ +interval: (\S+)$", file.read(), re.MULTILINE)[1]


class Monitoring:
    """Prometheus scrapes the admin port of every pod that names one; the adapter serves what it has scraped."""

    def __init__(self, control, node, program):
        self.control, self.node, self.program = control, node, program
        self.folder = os.path.join(control.folder, "prometheus")
        os.makedirs(self.folder, exist_ok=True)
        with open(os.path.join(self.folder, "prometheus.yml"), "w") as file:
            file.write(CONFIG % (interval(), os.path.join(self.folder, "targets.json")))
        threading.Thread(target=self._discover, daemon=True).start()
        self.start()
        threading.Thread(target=self._adapt, daemon=True).start()
        control.apply(SERVICES % {"node": NODE, "adapter": ADAPTER})

    def start(self):
        """Starts Prometheus."""
        flags = [
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address={NODE}:{PORT}",
        ]
        self.control.start("prometheus", self.program, *flags)

    def stop(self):
        """Takes Prometheus away."""
        self.control.stop("prometheus")

    def _discover(self):
        path, before = os.path.join(self.folder, "targets.json"), None
        while True:
            targets = []
            for pod in list(self.node.pods.values()):
                for container in pod.containers:
                    for port in container.spec.get("ports", []):
                        if port.get("name") == "admin" and pod.network:
                            labels = {"namespace": pod.namespace, "pod": pod.name}
                            labels["job"] = pod.item["metadata"]["labels"].get("app", "none")
                            targets.append(
                                {"targets": [f"{pod.network.address}:{port['containerPort']}"], "labels": labels}
                            )
            if targets != before:
                with open(path + ".new", "w") as file:
                    json.dump(targets, file)
                os.rename(path + ".new", path)
                before = targets
            time.sleep(1)

    def _adapt(self):
        server = ThreadingHTTPServer((NODE, ADAPTER), Adapter)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.control.keys["apiserver.crt"], self.control.keys["apiserver.key"])
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.serve_forever()


class Adapter(BaseHTTPRequestHandler):
    """Answers the HPA's controller as prometheus-adapter does with deploy/overlays/hpa/adapter-values.yaml."""

    protocol_version = "HTTP/1.1"
    BASE = "/apis/custom.metrics.k8s.io/v1beta1"

    def do_GET(self):  # noqa: N802
        """Discovery, or the values of one metric of a namespace's pods."""
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).rstrip("/")
        if path == self.BASE:
            resource = {"name": f"pods/{METRIC}", "singularName": "", "namespaced": True, "verbs": ["get"]}
            resource["kind"] = "MetricValueList"
            body = {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": self.BASE[6:],
                "resources": [resource],
            }
            self._send(200, body)
            return
        parts = path.removeprefix(self.BASE).split("/")
        if len(parts) != 6 or parts[3:] != ["pods", "*", METRIC]:
            self._send(404, {"kind": "Status", "code": 404, "message": f"{path} is not known"})
            return
        try:
            items = list(values(parts[2]))
        except (OSError, ValueError) as error:
            self._send(503, {"kind": "Status", "code": 503, "message": str(error)})
            return
        self._send(200, {"kind": "MetricValueList", "apiVersion": self.BASE[6:], "metadata": {}, "items": items})

    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """No line for each request."""


def values(namespace):
    """The metric of each pod of a namespace, from Prometheus."""
    query = urllib.parse.quote(f'max by (namespace, pod) ({METRIC}{{namespace="{namespace}"}})')
    with urllib.request.urlopen(f"http://{NODE}:{PORT}/api/v1/query?query={query}", timeout=5) as response:
        answer = json.load(response)
    for series in answer["data"]["result"]:
        moment, value = series["value"]
        yield {
            "describedObject": {
                "kind": "Pod",
                "namespace": namespace,
                "name": series["metric"]["pod"],
                "apiVersion": "/v1",
            },
            "metric": {"name": METRIC},
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)),
            "value": f"{round(float(value) * 1000)}m",
        }
