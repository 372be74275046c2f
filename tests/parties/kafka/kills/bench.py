"""Brokers, members, producer and oracle of one run, and what it waits for."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import GROUP
from .cluster import Cluster
from .flow import Oracle, Writer
from .ledger import Fault, Ledger, assess
from .member import Member
from .process import Process

# Time in which everything has to flow again after a fault: several times the longest session.
SETTLES = 180.0

# Time for which everything has to flow before it counts.
STEADY = 2.0


class Bench:
    def __init__(self, folder: Path, brokers: int, protocol: str, in_flight: int, rate: float) -> None:
        self.in_flight = in_flight
        self.rate = rate
        self.ledger = Ledger()
        self.faults: list[Fault] = []
        self.cluster = Cluster(folder, brokers)
        bootstrap = self.cluster.bootstrap
        self.members = [Member(f"member-{i + 1}", folder, bootstrap, protocol, in_flight) for i in range(2)]
        self.writer: Writer | None = None
        self.oracle: Oracle | None = None

    def start(self) -> None:
        self.cluster.start()
        self.cluster.make_topics()
        for member in self.members:
            member.start()
        bootstrap = self.cluster.bootstrap
        self.oracle = Oracle(bootstrap, self.ledger)
        self.writer = Writer(bootstrap, self.rate, self.ledger)
        self.oracle.thread.start()
        self.writer.thread.start()
        self.wait("everything to flow", self.flows, STEADY)

    def clean_up(self) -> None:
        for process in [*self.members, *self.cluster.brokers]:
            process.clean_up()

    def check(self) -> None:
        """Fails if anything has ended that should not have."""
        self.writer.check()
        self.oracle.check()
        for process in [*self.members, *self.cluster.brokers]:
            process.check_alive()

    def wait(self, what: str, condition: Callable[[], bool], steady: float = 0.0, limit: float = SETTLES) -> float:
        """Waits until the condition has held for some time. Returns how long it took until it did."""
        began = time.monotonic()
        since: float | None = None
        while True:
            self.check()
            now = time.monotonic()
            since = (since or now) if condition() else None
            if since and time.monotonic() - since >= steady:
                return since - began
            if now - began > limit:
                raise RuntimeError(f"a hang: no {what} within {limit:.0f} s; {self.state()}")
            time.sleep(0.2)

    def is_answering(self) -> bool:
        """Whether records of all partitions are answered as they come."""
        return self.ledger.quiet_for() < 2 and self.ledger.unanswered() < self.rate

    def flows(self) -> bool:
        """Whether, besides, both members have partitions and all brokers hold theirs."""
        return (self.is_answering() and all(member.partitions() for member in self.members)
                and self.cluster.is_whole())

    def state(self) -> str:
        partitions = [member.partitions() for member in self.members]
        return (f"unanswered {self.ledger.unanswered()}, quiet for {self.ledger.quiet_for():.1f} s, "
                f"members have {partitions} partitions, brokers are whole: {self.cluster.is_whole()}")

    def see_work(self, member: Member) -> str:
        """Fails unless the member answers records right now."""
        before = member.done()
        self.wait(f"work of {member.name}", lambda: member.done() > before, limit=10)
        return f"had {member.partitions()} partitions"

    @contextlib.contextmanager
    def fault(self, kind: str, target: Process, bound: int, detail: str = "",
              settle: bool = True) -> Iterator[Fault]:
        """Notes what the body does to a process. With `settle`, waits until everything flows again, and prints the
        outcome; otherwise that is known at the end."""
        fault = Fault(kind, target.name, time.time(), bound, detail)
        self.faults.append(fault)
        yield fault
        if settle:
            self.wait(f"flow after {kind} of {target.name}", self.flows, STEADY)
            fault.settled = time.time() - fault.at - STEADY
            assess(self.ledger, self.faults)
            print(fault.line(len(self.faults)), flush=True)

    def finish(self, limit: float) -> int:
        """Ends the load, and waits until all is answered. Returns the number of records that the brokers have."""
        self.writer.stop(150)
        if self.writer.refused:
            raise RuntimeError(f"the brokers refused records: {self.writer.refused[:3]}")
        began = time.monotonic()
        while self.ledger.unanswered() and time.monotonic() - began < limit:
            self.check()
            time.sleep(0.2)
        # Whatever is committed is finished, so nothing is repeated later without another fault.
        ends = self.cluster.ends()
        self.wait(f"commit of all by {GROUP}", lambda: self.cluster.committed() == ends, limit=60)
        time.sleep(2)
        self.oracle.stop(30)
        return sum(ends.values())
