"""The article, whole: 50 events at once each second for 100 seconds, from zero replicas.

By Knative: Kafka, the relay (in both orders of delivery), activator, queue-proxy, server, sized by the KPA from
requests in flight. By KEDA: Kafka, servers that read the topic themselves, sized from lag and demand.
"""

import csv
import json
import os
import re
import subprocess
import time
import urllib.request

from . import api, kafka, picture
from .ingress import ADDRESS
from .workload import Workload, render

TOPIC = "ai-info"
GROUP = "ai-info-consumer"
EVENTS = 5000
TITLES = {
    "unordered": "Knative's KPA; the relay delivers in any order",
    "ordered": "Knative's KPA; the relay delivers a partition in order",
    "keda": "KEDA, by lag and demand",
}
RELAY_ADMIN = 9199
LIMIT = 300
SERIES = re.compile(r'^intentd_kafka_(records_total\{outcome="(\w+)"\}|lag_records|lag_seconds) (\S+)', re.MULTILINE)

# A server that two cores can be too slow for.
SLOW = {"INTENTD_MODEL": "/models/slow", "INTENTD_THREADS": "1"}


def scrape(address):
    """Records by what became of them, and how many wait, by a process that reads the topic."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as response:
            text = response.read().decode()
    except OSError:
        return {}
    return {found[2] or found[1]: float(found[3]) for found in SERIES.finditer(text)}


class Way:
    """One way for the events to reach a server. Subclasses say how."""

    def __init__(self, cluster, broker, results, name):
        self.cluster, self.broker, self.results, self.name = cluster, broker, results, name
        self.topic, self.group, self.namespace = f"{TOPIC}-{name}", f"{GROUP}-{name}", f"a-{name}"
        self.rows = []
        broker.make(self.topic, 10)

    def readers(self):
        """Addresses of those that read the topic."""
        raise NotImplementedError

    def counts(self):
        """Replicas asked for, and ready."""
        raise NotImplementedError

    def sample(self, began):
        """One row: time, replicas, records."""
        wanted, ready = self.counts()
        found = [scrape(address) for address in self.readers()]
        row = {"seconds": round(time.monotonic() - began, 1), "wanted": wanted, "ready": ready}
        for name in ("done", "dead_letter", "dropped", "lag_records"):
            row[name] = int(sum(one.get(name, 0) for one in found))
        row["lag_seconds"] = round(max([one.get("lag_seconds", 0) for one in found], default=0), 3)
        self.rows.append(row)
        return row

    def run(self):
        """Sends the article's events, and returns what is wrong."""
        line = [
            self.cluster.programs["intentd"],
            "bench",
            "kafka",
            "--kafka-brokers",
            kafka.BOOTSTRAP,
            "--kafka-topic",
            self.topic,
        ]
        began = time.monotonic()
        producer = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # Over when all is read, and has been for long enough to see replicas end.
        quiet = None
        while time.monotonic() - began < LIMIT:
            row = self.sample(began)
            over = producer.poll() is not None and row["lag_records"] == 0
            quiet = (quiet or time.monotonic()) if over else None
            if quiet and (row["wanted"] == 0 or time.monotonic() - quiet > 120):
                break
            time.sleep(1)
        report = producer.communicate()[0]
        with open(os.path.join(self.results, f"article-{self.name}.csv"), "w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        with open(os.path.join(self.results, f"article-{self.name}-producer.txt"), "w") as file:
            file.write(report)
        return self.judge()

    def judge(self):
        """Compares Kafka's own counts with the events."""
        written, lag = self.broker.records(self.topic), self.broker.lag(self.group)
        self.summary = {
            "way": self.name,
            "written": written,
            "lag": lag,
            "dead_letters": max(row["dead_letter"] for row in self.rows),
            "dropped": max(row["dropped"] for row in self.rows),
            "most_wanted": max(row["wanted"] for row in self.rows),
            "most_ready": max(row["ready"] for row in self.rows),
            "first_ready_s": next((row["seconds"] for row in self.rows if row["ready"]), None),
            "oldest_s": max(row["lag_seconds"] for row in self.rows),
            "most_waiting": max(row["lag_records"] for row in self.rows),
            "zero_s": next((row["seconds"] for row in reversed(self.rows) if row["wanted"]), None),
        }
        self.summary["answered"] = self.answered()
        faults = []
        if written != EVENTS or lag:
            faults.append(f"{self.name}: {written} written, {lag} not read")
        if self.summary["dead_letters"] or self.summary["dropped"] or self.summary["answered"] < EVENTS:
            faults.append(f"{self.name}: {self.summary}")
        return faults

    def answered(self):
        """Events that were answered, by whoever can tell."""
        raise NotImplementedError


class Knative(Way):
    """The relay posts events to Knative's ingress, as KafkaSource does."""

    def __init__(self, cluster, broker, results, ordered):
        super().__init__(cluster, broker, results, "ordered" if ordered else "unordered")
        changes = [{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": "cpu"}]
        for name, value in SLOW.items():
            changes.append(
                {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": name, "value": value}}
            )
        patches = [("Service", "intentd", changes)]
        text = render("knative-article", self.namespace, patches, settings={}, image="dev.local/intentd")
        cluster.control.kubectl("apply", "--server-side", "-f", "-", text=text)
        self.deployments = api.Watched(f"/apis/apps/v1/namespaces/{self.namespace}/deployments")
        self.wait(lambda: self.ready() == "True", "is not ready")
        self.wait(lambda: self.counts()[0] == 0, "does not go to zero")
        sink = [f"--sink=http://{ADDRESS}/predict", f"--domain=intentd.{self.namespace}.svc.cluster.local"]
        source = [f"--kafka-brokers={kafka.BOOTSTRAP}", f"--kafka-topic={self.topic}", f"--kafka-group={self.group}"]
        # As the article's KafkaSource delivers.
        delivery = ["--retry=5", "--retry-delay=2s", "--retry-policy=linear", "--request-timeout=60s"]
        delivery += ["--ordered"] if ordered else []
        flags = [*sink, *source, *delivery, "--kafka-start=earliest", f"--admin-port={RELAY_ADMIN}"]
        self.relay = cluster.control.start("relay", cluster.programs["intentd"], "relay", *flags)

    def ready(self):
        """What the Knative Service says of itself."""
        item = api.get(f"/apis/serving.knative.dev/v1/namespaces/{self.namespace}/services/intentd") or {}
        conditions = item.get("status", {}).get("conditions", [])
        return next((one["status"] for one in conditions if one["type"] == "Ready"), None)

    def wait(self, holds, what):
        """Returns when something holds."""
        end = time.monotonic() + LIMIT
        while not holds():
            if time.monotonic() > end:
                raise SystemExit(f"{self.namespace}: {what}")
            time.sleep(1)

    def readers(self):
        return [f"127.0.0.1:{RELAY_ADMIN}"]

    def counts(self):
        items = list(self.deployments.objects.values())
        wanted = sum(item["spec"]["replicas"] for item in items)
        return wanted, sum(item.get("status", {}).get("readyReplicas", 0) for item in items)

    def answered(self):
        self.cluster.control.stop("relay")
        return max(row["done"] for row in self.rows)


class Keda(Way):
    """Servers that read the topic, by deploy/overlays/kafka."""

    def __init__(self, cluster, broker, results):
        super().__init__(cluster, broker, results, "keda")
        self.answers = f"intents-{self.name}"
        broker.make(self.answers, 10)
        broker.make(f"{TOPIC}-failed", 1)
        text = render("kafka", self.namespace, settings=SLOW)
        # The broker of this test has no login and no TLS.
        text = re.sub(
            r"^  INTENTD_KAFKA_(CA|PASSWORD_FILE|SASL_MECHANISM|USERNAME): .*\n", "", text, flags=re.MULTILINE
        )
        text = text.replace("sasl-ssl", "plaintext").replace(":9093", f":{kafka.PORT}")
        text = re.sub(rf"\b{GROUP}\b", self.group, text)
        text = re.sub(rf": {TOPIC}$", f": {self.topic}", text, flags=re.MULTILINE)
        # Rendering took the topic of answers for the namespace, whose name it has.
        text = re.sub(rf"value: {self.namespace}$", f"value: {self.answers}", text, flags=re.MULTILINE)
        self.workload = Workload(cluster.control, cluster.node, self.namespace, text)
        end = time.monotonic() + LIMIT
        while self.counts()[0] != 0:
            if time.monotonic() > end:
                raise SystemExit(f"{self.namespace}: does not go to zero")
            time.sleep(1)

    def readers(self):
        pods = self.cluster.node.of(self.namespace, "intentd-")
        return [
            f"{pod.network.address}:9100"
            for pod in pods
            if pod.ready() and pod.spec["containers"][0]["name"] == "intentd"
        ]

    def counts(self):
        return self.workload.counts()

    def answered(self):
        return self.broker.records(self.answers)


def run(cluster, results, chosen=("unordered", "ordered", "keda")):
    """The ways in turn. Returns what is wrong."""
    broker = kafka.Kafka(cluster.control, cluster.programs["kafka-jars"])
    faults, summaries = [], []
    for name in chosen:
        way = Keda(cluster, broker, results) if name == "keda" else Knative(cluster, broker, results, name == "ordered")
        faults += way.run()
        summaries.append(way.summary)
        print(json.dumps(way.summary), flush=True)
        with open(os.path.join(results, f"article-{name}.svg"), "w") as file:
            file.write(picture.article(way.rows, TITLES[name]))
        api.request("DELETE", f"/api/v1/namespaces/{way.namespace}")
        with open(os.path.join(results, "article.json"), "w") as file:
            json.dump(summaries, file, indent=1)
    return faults
