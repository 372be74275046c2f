"""What the producer was told and what the oracle saw, and the judgement about that."""

import bisect
import dataclasses
import statistics
import threading
import time

from . import PARTITIONS

# Seconds in which a fault shows what it repeats, at most: a broker's absence, a session, and a rebalance.
OVERCOME = 40.0


@dataclasses.dataclass
class Fault:
    """Something done to a process while records flow."""

    kind: str
    target: str
    at: float
    # How many answers it may repeat.
    bound: int
    detail: str = ""
    # Seconds until a broker that was killed listened again.
    away: float | None = None
    # Seconds until everything flowed again; None where nobody waited for that.
    settled: float | None = None
    repeats: int = 0
    rest: float = 0.0

    def line(self, number: int) -> str:
        parts = [f"{self.kind} {number} of {self.target}"]
        parts += [f"({self.detail})"] if self.detail else []
        parts += [f"at {time.strftime('%T', time.localtime(self.at))}:",
                  f"{self.repeats} repeats (at most {self.bound}), longest rest {self.rest:.1f} s"]
        parts += [f", listens after {self.away:.1f} s"] if self.away is not None else []
        parts += [f", all flows after {self.settled:.1f} s"] if self.settled is not None else []
        return " ".join(parts).replace(" ,", ",")


class Ledger:
    """All records and answers. Times are in seconds since 1970."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # By the record's number: where the brokers have stored it.
        self.stored: dict[int, tuple[int, int]] = {}
        # By the record's number: when answers were stored, and which record each said to answer.
        self.answers: dict[int, list[tuple[float, str]]] = {}
        # By the record's partition: the newest answer.
        self.newest = dict.fromkeys(range(PARTITIONS), 0.0)
        self.waiting: set[int] = set()
        self.is_closed = False

    def store(self, number: int, partition: int, offset: int) -> None:
        """The producer was told that a record is stored."""
        with self.lock:
            if self.is_closed:
                return
            self.stored[number] = (partition, offset)
            if number not in self.answers:
                self.waiting.add(number)

    def answer(self, number: int, cause: str, at: float) -> None:
        """The oracle has seen an answer. `cause` is the position of the record that it says to answer."""
        with self.lock:
            if self.is_closed:
                return
            self.answers.setdefault(number, []).append((at, cause))
            self.waiting.discard(number)
            partition = number % PARTITIONS
            self.newest[partition] = max(self.newest[partition], at)

    def close(self) -> None:
        """Notes nothing more. After a failure, producer and oracle still run while this is judged."""
        with self.lock:
            self.is_closed = True

    def unanswered(self) -> int:
        with self.lock:
            return len(self.waiting)

    def quiet_for(self) -> float:
        """How long the partition has rested that had an answer least recently."""
        with self.lock:
            return time.time() - min(self.newest.values())

    def repeats(self) -> list[float]:
        """When answers were stored to records that had one, in order."""
        with self.lock:
            return sorted(at for all_ in self.answers.values() if len(all_) > 1 for at, _ in sorted(all_)[1:])

    def times(self) -> list[list[float]]:
        """By the record's partition: when answers were stored, in order."""
        times: list[list[float]] = [[] for _ in range(PARTITIONS)]
        with self.lock:
            for number, answers in self.answers.items():
                times[number % PARTITIONS] += [at for at, _ in answers]
        return [sorted(of_one) for of_one in times]

    def wrong(self) -> list[str]:
        """Answers that name another record than the one whose key they have, as far as the producer was told where it is."""
        with self.lock:
            found = []
            for number, answers in self.answers.items():
                # The producer is not told about all that is stored: a connection may end before that.
                partition, offset = self.stored.get(number, (None, None))
                expected = f"partition:{partition}/offset:{offset}"
                found += [f"{number}: {cause}, not {expected}" for _, cause in answers
                          if partition is not None and cause != expected]
            return found


def longest_rest(times: list[list[float]], begin: float, end: float) -> float:
    """The longest time without an answer in a partition, of those that ended between `begin` and `end`: one that a
    fault causes began before it, and ends before the next one if somebody waits for that."""
    longest = 0.0
    for of_one in times:
        first = max(bisect.bisect_left(of_one, begin) - 1, 0)
        part = of_one[first:bisect.bisect_left(of_one, end)]
        longest = max([longest, *(later - earlier for earlier, later in zip(part, part[1:]))])
    return longest


def assess(ledger: Ledger, faults: list[Fault]) -> None:
    """Counts the repeats and the longest rest of each fault: those until the next one."""
    repeats, times = ledger.repeats(), ledger.times()
    for fault, after in zip(faults, [*faults[1:], None]):
        end = after.at if after else float("inf")
        fault.repeats = bisect.bisect_left(repeats, end) - bisect.bisect_left(repeats, fault.at)
        fault.rest = longest_rest(times, fault.at, end)


def too_often(ledger: Ledger, faults: list[Fault]) -> list[int]:
    """Records that were repeated more often than there were faults to cause it. The faults between the first and the last
    answer count, and the one before the first, since its effect lasts for a while."""
    struck = [fault.at for fault in faults]
    found = []
    for number, answers in ledger.answers.items():
        if len(answers) > 1:
            times = [at for at, _ in answers]
            before = max(bisect.bisect_right(struck, min(times)) - 1, 0)
            if len(times) - 1 > bisect.bisect_right(struck, max(times)) - before:
                found.append(number)
    return found


def allowed(faults: list[Fault], fault: Fault, settled: bool) -> int:
    """How many repeats may follow a fault: its bound, and where nobody waited, the bounds of those shortly before."""
    since = fault.at if settled else fault.at - OVERCOME
    return sum(other.bound for other in faults if since <= other.at <= fault.at)


def judge(ledger: Ledger, faults: list[Fault], written: int, settled: bool) -> tuple[dict, list[str]]:
    """The figures, and what is wrong. `written` are the records that the brokers say they have. `settled` says whether
    everything flowed again between two faults."""
    ledger.close()
    assess(ledger, faults)
    lost, repeats, wrong = sorted(ledger.waiting), ledger.repeats(), ledger.wrong()
    before = bisect.bisect_left(repeats, faults[0].at) if faults else len(repeats)
    most = max((len(answers) for answers in ledger.answers.values()), default=0)
    complaints = []
    if not ledger.stored:
        complaints.append("no record was written")
    if lost:
        complaints.append(f"lost: {len(lost)} records have no answer: {lost[:10]}")
    if before:
        complaints.append(f"repeats: {before} before the first fault")
    for number, fault in enumerate(faults, 1):
        most_here = allowed(faults, fault, settled)
        if fault.repeats > most_here:
            complaints.append(f"repeats: more than {most_here} after {fault.line(number)}")
    if settled and most > 2:
        complaints.append(f"repeats: a record has {most} answers, though everything flowed between two faults")
    often = too_often(ledger, faults)
    if often:
        complaints.append(f"repeats: {len(often)} records more often than there were faults: {often[:10]}")
    if wrong:
        complaints.append(f"wrong: {len(wrong)} answers: {wrong[:10]}")
    if written != len(ledger.stored):
        complaints.append(f"brokers: they have {written} records, and said that {len(ledger.stored)} are stored")
    rests = [fault.rest for fault in faults]
    return {
        "sent": len(ledger.stored),
        "answered": len(ledger.stored) - len(lost),
        "lost": len(lost),
        "repeats": len(repeats),
        "most_repeats_a_fault": max((fault.repeats for fault in faults), default=0),
        "most_answers_a_record": most,
        "rest_median_s": round(statistics.median(rests), 1) if rests else None,
        "rest_max_s": round(max(rests), 1) if rests else None,
    }, complaints
