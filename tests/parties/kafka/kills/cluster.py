"""Brokers of Apache Kafka, each a process of its own on this machine."""

import os
import socket
import subprocess
import time
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from . import GROUP, PARTITIONS, RESULTS, TOPIC
from .process import Process, free_ports

# Any id will do; it is 16 bytes in base64.
CLUSTER = "aW50ZW50ZC1raWxscy0wMQ"

PROPERTIES = """process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data-{node}
auto.create.topics.enable=false
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=3
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=3
group.initial.rebalance.delay.ms=0
leader.imbalance.check.interval.seconds=3
"""


def java(*arguments: str) -> list[str]:
    log = Path(__file__).parent.parent / "log4j2.yaml"
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={log}",
            "-cp", f"{os.environ['KAFKA_JARS']}/*", *arguments]


def java_hash(text: str) -> int:
    """The hash by which brokers choose a group's coordinator: the leader of that partition of __consumer_offsets."""
    value = 0
    for letter in text:
        value = (31 * value + ord(letter)) & 0xFFFFFFFF
    return abs(value - (1 << 32) if value >> 31 else value)


class Broker(Process):
    def __init__(self, node: int, port: int, folder: Path) -> None:
        super().__init__(f"broker-{node}", folder)
        self.node = node
        self.port = port
        self.properties = folder / f"broker-{node}.properties"

    def command(self) -> list[str]:
        return java("kafka.Kafka", str(self.properties))

    def is_listening(self) -> bool:
        self.check_alive()
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Cluster:
    """One broker, or three that hold each partition three times, of which two have to have a record."""

    def __init__(self, folder: Path, size: int) -> None:
        ports = free_ports(2 * size)
        self.brokers = [Broker(node + 1, ports[node], folder) for node in range(size)]
        voters = ",".join(f"{broker.node}@127.0.0.1:{ports[size + i]}" for i, broker in enumerate(self.brokers))
        for i, broker in enumerate(self.brokers):
            broker.properties.write_text(PROPERTIES.format(
                node=broker.node, port=broker.port, controller=ports[size + i], voters=voters, folder=folder,
                replicas=size, in_sync=min(size, 2)))
            line = java("kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER, "--config",
                        str(broker.properties))
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        self.bootstrap = ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)
        self._admin: AdminClient | None = None

    @property
    def admin(self) -> AdminClient:
        # Made only once there are brokers: it would complain meanwhile.
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "reconnect.backoff.max.ms": 500,
                                       "topic.metadata.refresh.interval.ms": 1000, "log_level": 2})
        return self._admin

    def start(self) -> None:
        for broker in self.brokers:
            broker.start()
        for broker in self.brokers:
            began = time.monotonic()
            while not broker.is_listening():
                if time.monotonic() - began > 180:
                    raise RuntimeError(f"{broker.name} does not start: {broker.log}")
                time.sleep(0.2)

    def make_topics(self) -> None:
        replicas = len(self.brokers)
        topics = [NewTopic(TOPIC, PARTITIONS, replicas),
                  # Stamped by the broker: how long a partition rests does not depend on when the oracle reads.
                  NewTopic(RESULTS, PARTITIONS, replicas, config={"message.timestamp.type": "LogAppendTime"})]
        for made in self.admin.create_topics(topics, operation_timeout=60, request_timeout=60).values():
            made.result(90)

    def is_whole(self) -> bool:
        """Whether all nodes hold all partitions, Kafka's own included, and each leads some of the records'."""
        try:
            topics = self.admin.list_topics(timeout=5).topics
        except KafkaException:
            return False
        if TOPIC not in topics or RESULTS not in topics:
            return False
        partitions = [part for topic in topics.values() for part in topic.partitions.values()]
        leaders = {part.leader for part in topics[TOPIC].partitions.values()}
        nodes = {broker.node for broker in self.brokers}
        return leaders == nodes and all(set(part.isrs) == nodes for part in partitions)

    def role_of(self, broker: Broker) -> str:
        """What a broker does for the records: partitions that it leads, and whether it coordinates the group."""
        try:
            topics = self.admin.list_topics(timeout=5).topics
        except KafkaException:
            return "nobody says what it does"
        counts = [sum(part.leader == broker.node for part in topics[name].partitions.values())
                  for name in (TOPIC, RESULTS)]
        # Not asked for: librdkafka 2.16 may abort this process while it looks for a coordinator that is being killed.
        groups = topics["__consumer_offsets"].partitions
        coordinates = groups[java_hash(GROUP) % len(groups)].leader == broker.node
        return f"leads {counts[0]} and {counts[1]} of the answers'" + (", coordinates the group" if coordinates else "")

    def ends(self) -> dict[int, int]:
        """The ends of the records' partitions, by the brokers."""
        asked = {TopicPartition(TOPIC, part): OffsetSpec.latest() for part in range(PARTITIONS)}
        return {part.partition: found.result(30).offset
                for part, found in self.admin.list_offsets(asked, request_timeout=30).items()}

    def committed(self) -> dict[int, int]:
        """The offsets that the group has committed."""
        asked = [ConsumerGroupTopicPartitions(GROUP)]
        found = self.admin.list_consumer_group_offsets(asked, request_timeout=30)[GROUP].result(30)
        return {part.partition: part.offset for part in found.topic_partitions if part.topic == TOPIC}
