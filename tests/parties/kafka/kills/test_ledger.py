"""The judgement notices what it is there for."""

import unittest

from .cluster import java_hash
from .ledger import Fault, Ledger, judge, longest_rest


def flow(count: int) -> Ledger:
    """Records that are answered once each, a tenth of a second apart, by turns in four partitions."""
    ledger = Ledger()
    for number in range(count):
        ledger.store(number, number % 4, number // 4)
        answer(ledger, number, number / 10)
    return ledger


def answer(ledger: Ledger, number: int, at: float) -> None:
    ledger.answer(number, f"partition:{number % 4}/offset:{number // 4}", at)


def faults(*times: float) -> list[Fault]:
    return [Fault("kill", "it", at, bound=3) for at in times]


class JudgeTest(unittest.TestCase):
    def judge(self, ledger: Ledger, struck: list[Fault], settled: bool = True) -> tuple[dict, list[str]]:
        return judge(ledger, struck, len(ledger.stored), settled)

    def test_nothing_is_wrong(self) -> None:
        ledger = flow(100)
        for number in (10, 11, 12):
            answer(ledger, number, 5.5)
        figures, complaints = self.judge(ledger, faults(5, 7))
        self.assertEqual(complaints, [])
        self.assertEqual((figures["sent"], figures["lost"], figures["repeats"]), (100, 0, 3))
        self.assertEqual((figures["most_repeats_a_fault"], figures["most_answers_a_record"]), (3, 2))

    def test_a_record_without_an_answer(self) -> None:
        ledger = flow(100)
        ledger.store(100, 0, 25)
        figures, complaints = self.judge(ledger, faults(5))
        self.assertEqual((figures["lost"], figures["answered"]), (1, 100))
        self.assertEqual(complaints, ["lost: 1 records have no answer: [100]"])

    def test_an_answer_before_the_record_is_told_to_be_stored(self) -> None:
        ledger = Ledger()
        answer(ledger, 0, 1.0)
        ledger.store(0, 0, 0)
        self.assertEqual(self.judge(ledger, faults(0.5))[1], [])

    def test_more_repeats_than_a_kill_may_cause(self) -> None:
        ledger = flow(100)
        for number in (10, 11, 12, 13):
            answer(ledger, number, 5.5)
        complaints = self.judge(ledger, faults(5, 7))[1]
        self.assertEqual(len(complaints), 1)
        self.assertTrue(complaints[0].startswith("repeats: more than 3 after kill 1 of it"), complaints)

    def test_what_faults_shortly_before_have_left(self) -> None:
        ledger = flow(1000)
        for number in (10, 11, 12, 13):
            answer(ledger, number, 60.5)
        for first, allowed in ((55.0, True), (15.0, False)):
            complaints = self.judge(ledger, faults(first, 60), settled=False)[1]
            self.assertEqual(complaints == [], allowed, complaints)
        self.assertEqual(len(self.judge(ledger, faults(55, 60))[1]), 1)

    def test_repeats_without_a_fault(self) -> None:
        ledger = flow(100)
        answer(ledger, 10, 4.0)
        complaints = self.judge(ledger, faults(5))[1]
        self.assertEqual(complaints, ["repeats: 1 before the first fault",
                                      "repeats: 1 records more often than there were faults: [10]"])

    def test_a_record_that_is_answered_three_times(self) -> None:
        ledger = flow(100)
        answer(ledger, 10, 5.5)
        answer(ledger, 10, 7.5)
        complaints = self.judge(ledger, faults(5, 7))[1]
        self.assertEqual(complaints, ["repeats: a record has 3 answers, though everything flowed between two faults"])

    def test_more_repeats_of_a_record_than_faults(self) -> None:
        ledger = flow(100)
        for at in (5.5, 6.5, 7.5):
            answer(ledger, 10, at)
        self.assertEqual(self.judge(ledger, faults(5, 6, 7), settled=False)[1], [])
        complaints = self.judge(ledger, faults(5, 6), settled=False)[1]
        self.assertEqual(complaints, ["repeats: 1 records more often than there were faults: [10]"])

    def test_an_answer_to_another_record(self) -> None:
        ledger = flow(100)
        ledger.answer(8, "partition:0/offset:3", 5.5)
        complaints = self.judge(ledger, faults(5))[1]
        self.assertEqual(complaints, ["wrong: 1 answers: ['8: partition:0/offset:3, not partition:0/offset:2']"])

    def test_records_that_the_brokers_have_not(self) -> None:
        ledger = flow(100)
        complaints = judge(ledger, faults(5), 99, True)[1]
        self.assertEqual(complaints, ["brokers: they have 99 records, and said that 100 are stored"])

    def test_what_comes_after_the_judgement_does_not_count(self) -> None:
        ledger = flow(100)
        ledger.store(100, 0, 25)
        self.judge(ledger, faults(5))
        answer(ledger, 100, 10.0)
        ledger.store(101, 1, 25)
        self.assertEqual((ledger.waiting, len(ledger.stored)), ({100}, 101))

    def test_nothing_was_written(self) -> None:
        self.assertEqual(self.judge(Ledger(), faults(5))[1], ["no record was written"])


class CoordinatorTest(unittest.TestCase):
    def test_the_hash_is_that_of_java(self) -> None:
        self.assertEqual([java_hash(text) for text in ("", "abc", "intentd")], [0, 96354, 1958059336])


class RestTest(unittest.TestCase):
    def test_a_rest_belongs_to_the_fault_after_which_it_ended(self) -> None:
        times = [[1.0, 2.0, 12.0, 13.0], [1.0, 2.0, 3.0, 13.0]]
        self.assertEqual(longest_rest(times, 2.5, 20.0), 10.0)
        self.assertEqual(longest_rest(times, 12.5, 20.0), 10.0, "the second partition rests until 13")
        self.assertEqual(longest_rest(times[:1], 12.5, 20.0), 1.0)
        self.assertEqual(longest_rest(times, 0.0, 11.5), 1.0)
        self.assertEqual(longest_rest(times, 0.0, 12.5), 10.0)

    def test_no_answers(self) -> None:
        self.assertEqual(longest_rest([[], []], 0.0, 1.0), 0.0)


if __name__ == "__main__":
    unittest.main()
