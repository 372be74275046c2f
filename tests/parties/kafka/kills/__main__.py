"""The command: runs one scenario and judges it."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
import unittest
from pathlib import Path

from confluent_kafka import KafkaException, Producer

from . import RESULTS, scenarios, test_ledger
from .bench import Bench
from .ledger import judge

BROKERS = {"member": 1, "broker": 1, "one-of-three": 3, "mixed": 3, "self-test": 1}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("scenario", choices=BROKERS, help="self-test: does this program notice a loss and repeats?")
    parser.add_argument("--kills", type=int, default=20, help="of member, broker, one-of-three")
    parser.add_argument("--minutes", type=float, default=10, help="of mixed")
    parser.add_argument("--seed", type=int, default=1, help="of mixed")
    parser.add_argument("--rate", type=float, default=300, help="records a second")
    parser.add_argument("--in-flight", type=int, default=64, help="--kafka-in-flight of each member")
    parser.add_argument("--protocol", choices=["classic", "consumer"], default="classic")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


def cheat(bench: Bench) -> int:
    """Claims a record that was never written, and repeats an answer more often than a kill may. Returns how often."""
    scenarios.kill_members(bench, 1)
    times = bench.faults[0].bound + 1
    producer = Producer({"bootstrap.servers": bench.cluster.bootstrap})
    with bench.ledger.lock:
        number = next(number for number in bench.ledger.answers if number in bench.ledger.stored)
        cause = bench.ledger.answers[number][0][1]
    for _ in range(times):
        producer.produce(RESULTS, key=str(number), value=b"{}", headers={"ce_causationid": cause})
    producer.flush(30)
    bench.ledger.store(10**9, 0, 10**9)
    return times


def work(bench: Bench, options: argparse.Namespace) -> tuple[dict, list[str]]:
    """Runs the scenario. Returns the figures and what is wrong."""
    began = time.monotonic()
    bench.start()
    print(f"everything flows after {time.monotonic() - began:.0f} s", flush=True)
    cheated = 0
    match options.scenario:
        case "member":
            scenarios.kill_members(bench, options.kills)
        case "broker" | "one-of-three":
            scenarios.kill_brokers(bench, options.kills)
        case "mixed":
            scenarios.mixed(bench, options.minutes * 60, options.seed)
        case "self-test":
            cheated = cheat(bench)
    written = bench.finish(limit=10 if cheated else 180)
    figures, complaints = judge(bench.ledger, bench.faults, written, options.scenario != "mixed")
    if options.scenario == "mixed":
        print(*[fault.line(i + 1) for i, fault in enumerate(bench.faults)], sep="\n")
    if cheated:
        expected = ("lost: 1 ", "repeats: more than ", "repeats: a record has ", "brokers: ")
        missed = [text for text in expected if not any(found.startswith(text) for found in complaints)]
        print("noticed:", *complaints, sep="\n  ")
        complaints = [f"not noticed: {text}" for text in missed]
        if figures["repeats"] < cheated or figures["lost"] != 1:
            complaints.append(f"counted wrongly: {figures}")
    return figures, complaints


def run(options: argparse.Namespace, folder: Path) -> int:
    bench = Bench(folder, BROKERS[options.scenario], options.protocol, options.in_flight, options.rate)
    figures: dict = {}
    try:
        figures, complaints = work(bench, options)
    except (RuntimeError, KafkaException) as failure:
        complaints = [str(failure)]
        figures, _ = judge(bench.ledger, bench.faults, 0, True)
    finally:
        bench.clean_up()
    report = {
        "scenario": options.scenario, "protocol": options.protocol, "brokers": len(bench.cluster.brokers),
        "rate": options.rate, "in_flight": options.in_flight,
        **({"seed": options.seed} if options.scenario == "mixed" else {}),
        **figures,
        "complaints": complaints,
        "faults": [{**vars(fault), "at": round(fault.at, 3), "rest": round(fault.rest, 2),
                    "away": fault.away and round(fault.away, 1),
                    "settled": fault.settled and round(fault.settled, 1)} for fault in bench.faults],
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({name: value for name, value in report.items() if name != "faults"}))
    return 1 if complaints else 0


def main() -> int:
    options = arguments()
    if options.scenario == "self-test":
        tests = unittest.defaultTestLoader.loadTestsFromModule(test_ledger)
        if not unittest.TextTestRunner().run(tests).wasSuccessful():
            return 1
    # As Ctrl-C does: processes end and the folder goes.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    code = 1
    keep = False
    try:
        code = run(options, folder)
        keep = code != 0
    finally:
        # A second Ctrl-C would leave the folder behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if keep:
            print(f"logs and data are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return code


sys.exit(main())
