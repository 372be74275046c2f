"""The program under test, as a member of the group."""

import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from . import GROUP, RESULTS, TOPIC
from .process import Process


class Member(Process):
    def __init__(self, name: str, folder: Path, bootstrap: str, protocol: str, in_flight: int) -> None:
        super().__init__(name, folder)
        self.flags = ["--kafka-brokers", bootstrap, "--kafka-topic", TOPIC, "--kafka-group", GROUP,
                      "--kafka-results-topic", RESULTS, "--kafka-group-protocol", protocol,
                      "--kafka-in-flight", str(in_flight)]

    def command(self) -> list[str]:
        return [os.environ["INTENTD"], "serve", "--host", "127.0.0.1", "--port", "0", "--admin-port", "0",
                "--threads", "1", "--lame-duck", "0s", *self.flags]

    def metrics(self) -> dict[str, float]:
        """Its metrics about Kafka; none while it does not answer."""
        self.check_alive()
        found = re.search(r"serving metrics.*address=(\S+)", self.log.read_text(errors="replace"))
        if not found:
            return {}
        try:
            with urllib.request.urlopen(f"http://{found[1]}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except (urllib.error.URLError, OSError):
            return {}
        pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("intentd_kafka"))
        return {name: float(value) for name, value in pairs}

    def partitions(self) -> int:
        return int(self.metrics().get("intentd_kafka_partitions", 0))

    def done(self) -> float:
        """Records that it has answered since it started."""
        return self.metrics().get('intentd_kafka_records_total{outcome="done"}', 0)
