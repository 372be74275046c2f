"""Compares forward passes of intentd with those of ONNX Runtime and torch, turn by turn.

    target/peers/venv/bin/python benches/peers/forward.py --model CHECKPOINT_DIR --onnx EXPORT_DIR \\
        --ours f32 --ours int8 --ours f32:avx2 --theirs ort-fp32 --theirs ort-int8 --json OUT.json

Every engine is a process of its own. In every round each of them runs the same batches, one engine
after the other, in an order that changes from round to round; an engine gets its turn when the
threads of the one before have stopped spinning. What is compared is the paired ratio of a round,
theirs / ours: above 1 intentd is faster. `--labels N` compares the labels of N texts with those
of the first `--ours`.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from common import HERE, ROOT, available_cores, machine, read_texts

# Threads that ran no longer than this in one pause are at rest.
PAUSE, AT_REST, PATIENCE = 0.02, 0.0005, 5.0
LABELS_BATCH = 32


class Contender:
    """One engine, which runs batches when it is told to and does nothing in between."""

    def __init__(self, name, command):
        self.name = name
        # torch and tokenizers have threads of their own for what is not timed; that is left as it is.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.about = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with exit code {self.process.wait()}")
        return json.loads(line)

    def run(self, batches):
        self.process.stdin.write(json.dumps({"batches": batches}) + "\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.rest()
        return answer

    def cpu_seconds(self):
        """Time on a core of all threads, to the nanosecond."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def rest(self):
        """Waits until its threads do nothing: those of ONNX Runtime spin for a while after a run."""
        deadline = time.monotonic() + PATIENCE
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(PAUSE)
            now = self.cpu_seconds()
            if now - before <= AT_REST:
                return
            before = now
        raise SystemExit(f"{self.name} still computes {PATIENCE} s after its turn")

    def close(self):
        self.process.kill()
        self.process.wait()


def built_binary():
    """The program of benches/forward.rs; cargo builds it where it is not yet."""
    command = ["cargo", "bench", "--bench", "forward", "--no-run", "--message-format", "json"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    found = [entry["executable"] for entry in messages if entry.get("executable") and entry["target"]["name"] == "forward"]
    return found[-1]


def start(flags, texts, stack):
    """All contenders, ours and theirs."""

    def contender(name, command):
        one = Contender(name, command)
        stack.callback(one.close)
        print(f"{name}: {one.about['engine']}", file=sys.stderr)
        return one

    common = ["--model", str(flags.model.resolve()), "--texts", texts, "--threads", str(flags.threads)]
    binary = flags.binary or built_binary()
    ours, theirs = [], []
    for variant in flags.ours:
        dtype, _, isa = variant.partition(":")
        command = [str(binary), *common, "--dtype", dtype, "--cpu-isa", isa or "best"]
        ours.append(contender(f"intentd {variant}", command))
    for variant in flags.theirs:
        command = [sys.executable, str(HERE / "forward_worker.py"), *common, "--engine", variant]
        command += ["--onnx", str(flags.onnx.resolve())] if flags.onnx else []
        theirs.append(contender(variant, command))
    return ours, theirs


def calibrate(contenders, draw, size, seconds):
    """Batches a turn, so that the slowest contender computes for about `seconds`; warms all up, too."""
    slowest = 0.0
    for contender in contenders:
        times = contender.run([draw(size) for _ in range(5)])["seconds"]
        slowest = max(slowest, statistics.median(times))
    return max(3, min(500, math.ceil(seconds / slowest)))


def rounds(contenders, draw, size, flags):
    """Seconds a batch of each contender in each round."""
    count = calibrate(contenders, draw, size, flags.seconds)
    times = {contender.name: [] for contender in contenders}
    for index in range(flags.rounds):
        batches = [draw(size) for _ in range(count)]
        # Rotated and every other time reversed, so that nobody always follows the same one.
        turn = index % len(contenders)
        order = contenders[turn:] + contenders[:turn]
        for contender in order[:: -1 if index % 2 else 1]:
            times[contender.name].append(sum(contender.run(batches)["seconds"]) / count)
    return {"batches": count, "seconds": times}


def ratios(measured, ours, theirs):
    """The paired ratio theirs / ours of every pair, over the rounds of one batch size."""
    found = []
    for one in ours:
        for other in theirs:
            paired = [b / a for a, b in zip(measured["seconds"][one], measured["seconds"][other])]
            found.append({"ours": one, "theirs": other, "median": statistics.median(paired), "min": min(paired), "max": max(paired)})
    return found


def equal_labels(contenders, count):
    """The share of texts that get the label the first contender gives them."""
    batches = [list(range(at, min(at + LABELS_BATCH, count))) for at in range(0, count, LABELS_BATCH)]
    found = {one.name: sum(one.run(batches)["labels"], []) for one in contenders}
    expected = found[contenders[0].name]
    return {name: sum(map(int.__eq__, labels, expected)) / count for name, labels in found.items()}


def table(result):
    sizes = list(result["sizes"])
    lines = ["| ms a batch, median | " + " | ".join(sizes) + " |", "| --- |" + " --- |" * len(sizes)]
    for name in result["contenders"]:
        medians = [statistics.median(result["sizes"][size]["seconds"][name]) * 1e3 for size in sizes]
        lines.append(f"| {name} | " + " | ".join(f"{value:.3g}" for value in medians) + " |")
    lines += ["", "| theirs / ours, median (min to max) | " + " | ".join(sizes) + " |", "| --- |" + " --- |" * len(sizes)]
    for pairs in zip(*(result["sizes"][size]["ratios"] for size in sizes)):
        cells = [f"{pair['median']:.2f} ({pair['min']:.2f} to {pair['max']:.2f})" for pair in pairs]
        lines.append(f"| {pairs[0]['theirs']} / {pairs[0]['ours']} | " + " | ".join(cells) + " |")
    if "labels" in result:
        first = result["contenders"][0]
        lines += ["", f"| labels as of {first}, {result['labels']['texts']} texts | |", "| --- | --- |"]
        lines += [f"| {name} | {share:.2%} |" for name, share in result["labels"]["equal"].items() if name != first]
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="directory of the checkpoint")
    parser.add_argument("--onnx", type=Path, help="what export.py wrote for it")
    parser.add_argument("--ours", action="append", metavar="DTYPE[:ISA]", help="f32, bf16 or int8; f32:avx2; several [default: f32]")
    parser.add_argument("--theirs", action="append", choices=["ort-fp32", "ort-int8", "torch", "torch-bf16"], help="several [default: ort-fp32]")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 32], help="texts in a batch")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="a turn of the slowest")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--labels", type=int, metavar="N", help="compare the labels of N texts, too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--binary", type=Path, help="benches/forward.rs, built; asked of cargo when not given")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    flags = parser.parse_args()
    flags.ours, flags.theirs = flags.ours or ["f32"], flags.theirs or ["ort-fp32"]
    if flags.onnx is None and any(name.startswith("ort") for name in flags.theirs):
        parser.error("ort-* needs --onnx, the directory that export.py wrote")
    return flags


def main():
    flags = parse()
    os.environ["HF_HUB_OFFLINE"] = "1"
    texts = read_texts(flags.labels and max(flags.labels, 700))
    source = random.Random(flags.seed)
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8"))
        file.write("\n".join(texts))
        file.flush()
        ours, theirs = start(flags, file.name, stack)
        contenders = ours + theirs
        result = machine() | {
            "model": flags.model.name,
            "threads": flags.threads,
            "date": time.strftime("%Y-%m-%d"),
            "contenders": [one.name for one in contenders],
            "engines": {one.name: one.about["engine"] for one in contenders},
            "sizes": {},
        }
        for size in flags.sizes:
            measured = rounds(contenders, lambda count: source.sample(range(700), count), size, flags)
            measured["ratios"] = ratios(measured, [one.name for one in ours], [one.name for one in theirs])
            result["sizes"][str(size)] = measured
        if flags.labels:
            result["labels"] = {"texts": flags.labels, "equal": equal_labels(contenders, flags.labels)}
    print(table(result))
    if flags.json:
        flags.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
