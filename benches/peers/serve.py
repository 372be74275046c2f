"""Compares servers: the rate each one holds with 99 % of the answers within an objective.

    target/peers/venv/bin/python benches/peers/serve.py --model CHECKPOINT_DIR --onnx EXPORT_DIR --out DIR

Each peer runs alone beside intentd, and `intentd bench` takes turns between the two. Before that
both have to give the same labels. Writes to DIR what `intentd bench` reports, the servers' logs,
and `serve.json` with all of it; prints a table. Whatever happens, it ends the servers it started.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from common import ROOT, SNIPS, available_cores, machine, read_texts
from servers import Server, commands, target_file

OURS = ("intentd", "intentd-int8")
PEERS = ("ort-fp32", "ort-fp32-batching", "ort-int8", "ort-int8-batching", "litserve", "infinity", "infinity-optimum", "tei", "triton")
DEFAULT = "intentd,ort-fp32,ort-fp32-batching,ort-int8,ort-int8-batching,litserve,infinity"
# int8 may turn a label of a text that is close to two; fp32 may not.
LABELS_TEXTS, LABELS_EQUAL_MIN, LABELS_EQUAL_MIN_INT8 = 50, 1.0, 0.9


def compare_labels(ours, peer):
    """The share of texts to which both give the same label."""
    texts = read_texts()[:: len(read_texts()) // LABELS_TEXTS][:LABELS_TEXTS]
    equal = sum(ours.ask(text) == peer.ask(text) for text in texts) / len(texts)
    least = LABELS_EQUAL_MIN_INT8 if "int8" in ours.name + peer.name else LABELS_EQUAL_MIN
    if equal < least:
        raise SystemExit(f"{peer.name} and {ours.name} give the same label to {equal:.0%} of {len(texts)} texts")
    return equal


def bench(ours, peer, flags):
    """`intentd bench` on two running servers; what it wrote."""
    report = flags.out / f"{ours.name}-{peer.name}.json"
    command = [flags.intentd, "bench", "--find-max", "--slo", flags.slo, "--rounds", flags.rounds, "--duration", flags.duration]
    command += ["--texts", SNIPS / "test.jsonl", "--json", report, "--compare", target_file(ours.name), target_file(peer.name)]
    if flags.client_cores:
        command = ["taskset", "--cpu-list", flags.client_cores, *command]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, stdout=sys.stderr)
    return json.loads(report.read_text())


def summary(report):
    """What the table shows of a report of `intentd bench`: the only place here that knows its keys."""

    def of(target):
        held = [run for one in target["rounds"] for run in one["runs"] if run["holds"]]
        # The hardest load that was held, of each round taken together.
        near = [run["p99_ms"] for run in held if run["offered_per_second"] >= 0.9 * (target["highest_per_second"] or 0)]
        return {"max_rate": target["highest_per_second"], "p99_ms": statistics.median(near) if near else None}

    ours, peer = (of(target) for target in report["targets"])
    paired = [
        a["highest_per_second"] / b["highest_per_second"]
        for a, b in zip(*(target["rounds"] for target in report["targets"]))
        if a["highest_per_second"] and b["highest_per_second"]
    ]
    ratio = {"median": statistics.median(paired), "min": min(paired), "max": max(paired)} if paired else None
    return {"ours": ours, "peer": peer, "ratio": ratio}


def pair(our_name, peer_name, flags):
    """Both servers from start to end."""
    with ExitStack() as stack:
        running = []
        for name in (our_name, peer_name):
            server = Server(name, commands(flags)[name], flags)
            stack.callback(server.close)
            server.wait()
            running.append(server)
        equal = compare_labels(*running)
        report = bench(*running, flags)
        label = running[1].target["name"]
    return {"ours": our_name, "peer": peer_name, "name": label, "labels_equal": equal, "report": report} | {"summary": summary(report)}


def table(results, flags):
    lines = [
        f"| requests a second with p99 within {flags.slo} | intentd | peer | intentd / peer (min to max) | same labels |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in results:
        if "failed" in result:
            lines.append(f"| {result['peer']} | | | {result['failed']} | |")
            continue
        found = result["summary"]
        rates = [f"{found[side]['max_rate'] or 0:.0f}" for side in ("ours", "peer")]
        ratio = found["ratio"]
        shown = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "none held it"
        lines.append(f"| {result['ours']} and {result['name']} | {rates[0]} | {rates[1]} | {shown} | {result['labels_equal']:.0%} |")
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="directory of the checkpoint")
    parser.add_argument("--onnx", required=True, type=Path, help="what export.py wrote for it")
    parser.add_argument("--out", required=True, type=Path, help="directory for reports and logs")
    parser.add_argument("--servers", default=DEFAULT, help=f"of {', '.join(OURS + PEERS)} [default: {DEFAULT}]")
    parser.add_argument("--tei", type=Path, help="the program text-embeddings-router; adds the server tei")
    parser.add_argument("--triton", type=Path, help="the program tritonserver; adds the server triton")
    parser.add_argument("--triton-repository", type=Path, help="a model repository with a model `intent`: README.md")
    parser.add_argument("--intentd", type=Path, default=ROOT / "target" / "release" / "intentd")
    parser.add_argument("--threads", type=int, default=available_cores(), help="of each server")
    parser.add_argument("--batch-wait-ms", type=float, default=2.0, help="of the peers that batch")
    parser.add_argument("--ort-flags", default="", help='more flags for serve_ort.py, such as "--no-spinning --threads 1 --concurrency 2"')
    parser.add_argument("--slo", default="50ms")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", default="5s", help="of one load")
    parser.add_argument("--server-cores", metavar="LIST", help="cores for the servers, as taskset takes them")
    parser.add_argument("--client-cores", metavar="LIST", help="cores for `intentd bench`")
    flags = parser.parse_args()
    for path in ("model", "onnx", "out", "intentd", "tei", "triton", "triton_repository"):
        setattr(flags, path, getattr(flags, path) and getattr(flags, path).resolve())
    names = flags.servers.split(",") + ["tei"] * bool(flags.tei) + ["triton"] * bool(flags.triton)
    unknown = set(names) - set(OURS + PEERS)
    if unknown:
        parser.error(f"no such server: {', '.join(sorted(unknown))}")
    if flags.triton and not flags.triton_repository:
        parser.error("--triton needs --triton-repository")
    flags.ours = [name for name in OURS if name in names] or ["intentd"]
    flags.peers = [name for name in PEERS if name in names]
    return flags


def main():
    flags = parse()
    flags.out.mkdir(parents=True, exist_ok=True)
    # Asked to stop, Python then unwinds, and the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ.pop("PORT", None)
    results = []
    for our_name in flags.ours:
        for peer_name in flags.peers:
            try:
                results.append(pair(our_name, peer_name, flags))
            except (SystemExit, subprocess.CalledProcessError) as error:
                if isinstance(error, SystemExit) and not isinstance(error.code, str):
                    raise
                results.append({"ours": our_name, "peer": peer_name, "failed": str(error)})
    head = machine() | {"model": flags.model.name, "date": time.strftime("%Y-%m-%d"), "threads": flags.threads, "slo": flags.slo}
    (flags.out / "serve.json").write_text(json.dumps(head | {"results": results}, indent=1) + "\n")
    print(table(results, flags))
    sys.exit(any("failed" in result for result in results))


if __name__ == "__main__":
    main()
