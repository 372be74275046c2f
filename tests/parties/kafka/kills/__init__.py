"""Kills members and brokers of a real Apache Kafka while records flow; see run.sh."""

TOPIC = "kills"
RESULTS = "kills-answers"
GROUP = "kills"
PARTITIONS = 4
