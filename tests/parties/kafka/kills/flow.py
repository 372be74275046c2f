"""The producer and the oracle: independent clients, each on a thread of its own."""

import threading
import time

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from . import PARTITIONS, RESULTS, TOPIC
from .ledger import Ledger

TEXTS = ["play some jazz", "will it rain in berlin on monday", "book a table for two at eight",
         "rate this book five stars", "find the movie schedule near me"]

# Errors of a broker that is away. librdkafka goes on by itself.
PASSING = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE,
           KafkaError._MAX_POLL_EXCEEDED}


class Worker:
    """A thread that works until it is told to stop, and whose failure is noticed."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as failure:
            self.failure = failure

    def work(self) -> None:
        raise NotImplementedError

    def check(self) -> None:
        if self.failure:
            raise RuntimeError(f"{type(self).__name__} has failed: {self.failure!r}")

    def stop(self, limit: float) -> None:
        self.stopping.set()
        self.thread.join(limit)
        if self.thread.is_alive():
            raise RuntimeError(f"{type(self).__name__} does not stop")
        self.check()


class Writer(Worker):
    """Writes numbered records at a steady rate, and notes those that it is told are stored."""

    def __init__(self, bootstrap: str, rate: float, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.rate = rate
        self.refused: list[str] = []
        self.client = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5, "log_level": 2,
            "reconnect.backoff.max.ms": 1000,
            # Longer than any fault: a record may wait for its broker, but is not given up.
            "message.timeout.ms": 900_000,
        })

    def work(self) -> None:
        began, number = time.monotonic(), 0
        while not self.stopping.is_set():
            while number < (time.monotonic() - began) * self.rate:
                self.client.produce(TOPIC, key=str(number), value=TEXTS[number % len(TEXTS)],
                                    partition=number % PARTITIONS, on_delivery=self._delivered)
                number += 1
            self.client.poll(0.005)
        left = self.client.flush(120)
        if left:
            raise RuntimeError(f"{left} records cannot be written")

    def _delivered(self, error: KafkaError | None, record: Message) -> None:
        if error:
            self.refused.append(str(error))
        else:
            self.ledger.store(int(record.key()), record.partition(), record.offset())


class Oracle(Worker):
    """Reads all answers, from the first one."""

    def __init__(self, bootstrap: str, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self.client = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "oracle", "enable.auto.commit": False, "log_level": 2,
            "reconnect.backoff.max.ms": 500, "fetch.wait.max.ms": 50, "auto.offset.reset": "earliest",
        })
        self.client.assign([TopicPartition(RESULTS, part, 0) for part in range(PARTITIONS)])

    def work(self) -> None:
        # An offset that comes again is this consumer's repeat, not the program's.
        seen = dict.fromkeys(range(PARTITIONS), -1)
        while not self.stopping.is_set():
            for message in self.client.consume(1000, 0.1):
                if message.error():
                    if message.error().code() not in PASSING and not message.error().retriable():
                        raise RuntimeError(message.error())
                elif message.offset() > seen[message.partition()]:
                    if message.offset() != seen[message.partition()] + 1:
                        raise RuntimeError(f"answers are missing before {message.offset()}: {seen}")
                    seen[message.partition()] = message.offset()
                    cause = dict(message.headers() or []).get("ce_causationid", b"")
                    self.ledger.answer(int(message.key()), cause.decode(), message.timestamp()[1] / 1000)
        self.client.close()
