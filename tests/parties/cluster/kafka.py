"""One node of Apache Kafka, and what its own tools say."""

import os
import re
import subprocess
import time

from .network import NODE

PORT = 9092

# For a tool of Kafka's, which shares two cores with all that it asks about.
TIMEOUT = 300
CLUSTER = "aW50ZW50ZC1hcnRpY2xlMQ"
BOOTSTRAP = f"{NODE}:{PORT}"

PROPERTIES = f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{NODE}:9093
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{NODE}:{PORT},CONTROLLER://{NODE}:9093
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""

# Under the name that the manifests have for it.
SERVICE = f"""
apiVersion: v1
kind: Namespace
metadata: {{name: kafka}}
---
apiVersion: v1
kind: Service
metadata: {{name: kafka-bootstrap, namespace: kafka}}
spec: {{ports: [{{name: plain, port: {PORT}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: kafka, namespace: kafka, labels: {{kubernetes.io/service-name: kafka-bootstrap}}}}
addressType: IPv4
ports: [{{name: plain, port: {PORT}}}]
endpoints: [{{addresses: ["{NODE}"], conditions: {{ready: true}}}}]
"""


class Kafka:
    """Runs for as long as the test does."""

    def __init__(self, control, jars):
        self.jars = jars
        folder = os.path.join(control.folder, "kafka")
        os.makedirs(folder)
        properties = os.path.join(folder, "server.properties")
        with open(properties, "w") as file:
            file.write(f"{PROPERTIES}log.dirs={folder}/data\n")
        self.tool("kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, "--config", properties)
        control.start("kafka", *self.line("kafka.Kafka", properties))
        control.apply(SERVICE)
        end = time.monotonic() + 180
        while True:
            try:
                self.topics()
                return
            except subprocess.CalledProcessError as error:
                if time.monotonic() > end:
                    raise SystemExit(f"Kafka does not start: {error.stderr}") from error

    def line(self, *arguments):
        """A command line with Kafka's classes."""
        log = os.path.join(os.path.dirname(__file__), "../kafka/log4j2.yaml")
        return [
            "java",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={log}",
            "-cp",
            f"{self.jars}/*",
            *arguments,
        ]

    def tool(self, *arguments):
        """Runs one of Kafka's own tools."""
        return subprocess.run(self.line(*arguments), check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout

    def topics(self, *arguments):
        """Lists topics, or does what the arguments say."""
        arguments = arguments or ("--list",)
        return self.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", BOOTSTRAP, *arguments)

    def make(self, topic, partitions):
        """Makes a topic."""
        self.topics("--create", "--topic", topic, "--partitions", str(partitions), "--replication-factor", "1")

    def records(self, topic):
        """How many records a topic has."""
        shown = self.tool("org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", BOOTSTRAP, "--topic", topic)
        return sum(int(line.rsplit(":", 1)[1]) for line in shown.split())

    def lag(self, group):
        """Records that a group has not committed."""
        tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
        shown = self.tool(tool, "--bootstrap-server", BOOTSTRAP, "--group", group, "--describe", "--offsets")
        return sum(
            int(found[1])
            for found in re.finditer(rf"^{re.escape(group)}\s+\S+\s+\d+\s+\d+\s+\d+\s+(\d+)", shown, re.MULTILINE)
        )
