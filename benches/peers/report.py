"""Writes docs/performance.md from a folder of results.

    python3 benches/peers/report.py benches/results/2026-11-24-peers

Takes what forward.py and serve.py write (`forward-*.json`, `serve-*.json`), what the benches print
(`*.txt`) and pictures (`*.svg`), all of one machine and day.
"""

import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "base": "BERT-base's shape (12 layers of 768), random weights",
    "small": "4 layers of 256, random weights",
    "intent-snips": "the embedded model (2 layers of 128)",
}
PEERS = {"ort-fp32": "ONNX Runtime fp32", "ort-int8": "ONNX Runtime int8", "torch": "torch fp32"}


def forward(result):
    """The paired ratios of one model, a row for each of our types and each peer."""
    ours = [name for name in result["contenders"] if name.startswith("intentd")]
    theirs = [name for name in result["contenders"] if name in PEERS]
    sizes = result["sizes"]
    lines = ["| ms a batch, medians | " + " | ".join(sizes) + " |", "| --- |" + " --- |" * len(sizes)]
    for name in ours + theirs:
        cells = [f"{statistics.median(size['seconds'][name]) * 1000:.3g}" for size in sizes.values()]
        lines.append(f"| {PEERS.get(name, name)} | " + " | ".join(cells) + " |")
    lines += ["", "| times as fast, medians of paired ratios (min to max) | " + " | ".join(sizes) + " |"]
    lines.append("| --- |" + " --- |" * len(sizes))
    for peer in theirs:
        for name in ours:
            cells = []
            for size in sizes.values():
                ratios = [theirs / ours for theirs, ours in zip(size["seconds"][peer], size["seconds"][name])]
                cells.append(f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})")
            lines.append(f"| {name} against {PEERS[peer]} | " + " | ".join(cells) + " |")
    return lines


def serve(result):
    lines = [
        f"| requests a second with p99 within {result['slo']} | intentd | peer | ratio (min to max) | rounds | same labels |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for pair in result["results"]:
        if "failed" in pair:
            lines.append(f"| {pair['peer']} | | | {pair['failed']} | | |")
            continue
        found = pair["summary"]
        rates = [f"{found[side]['max_rate'] or 0:.0f}" for side in ("ours", "peer")]
        ratio, rounds = found["ratio"], len(pair["report"]["targets"][0]["rounds"])
        shown = f"**{ratio['median']:.2f}** ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "the peer held no rate"
        lines.append(f"| {pair['ours']} and {pair['name']} | {rates[0]} | {rates[1]} | {shown} | {rounds} | {pair['labels_equal']:.0%} |")
    return lines


def sections(folder):
    """The page's parts, in order."""
    forwards = {path.stem.removeprefix("forward-"): json.loads(path.read_text()) for path in folder.glob("forward-*.json")}
    serves = {path.stem.removeprefix("serve-"): json.loads(path.read_text()) for path in sorted(folder.glob("serve-*.json"))}
    one = next(iter(forwards.values()))
    yield f"Machine: {one['cpu']}, {one['cores']} cores, {one['threads']} threads; {one['date']}."
    yield (folder / "notes.md").read_text().strip()
    yield "## Forward passes"
    yield (
        "Texts of SNIPS in batches of 1, 8 and 32, each engine a process of its own, turn by turn; only the forward "
        "pass is timed. ONNX Runtime gets its batch padded to the longest text and keeps the faster of its two forms "
        "of the model; [benches/peers](../benches/peers/README.md) says how it is made fair."
    )
    for name, title in MODELS.items():
        if name in forwards:
            yield f"### {title[0].upper()}{title[1:]}"
            yield "\n".join(forward(forwards[name]))
    yield "## Servers"
    for name, result in serves.items():
        yield f"### {MODELS[result['model']][0].upper()}{MODELS[result['model']][1:]}, p99 within {result['slo']} ({name})"
        yield "\n".join(serve(result))
    for path in sorted(folder.glob("*.svg")):
        yield f"![{path.stem}](../{path.relative_to(ROOT)})"
    flames = ROOT / "docs" / "flamegraph.svg"
    if flames.exists():
        yield "## Where a request's microseconds go"
        yield (
            "[The flame graph](flamegraph.svg) (open it in a browser to zoom) was taken from a server with one engine "
            "thread under full load: two thirds of the CPU time are the forward pass, most of that its products. Of "
            "the rest, a third is sending the answer (the system's TCP), a tenth receiving the request, a seventh "
            "threads that go to sleep and wake between batches, a fifth our own decoding, look-up of words, queue and "
            "encoding, and what remains hyper, axum and tokio."
        )
        yield "![flame graph](flamegraph.svg)"
    for path in sorted(folder.glob("*.txt")):
        yield f"## {path.stem[0].upper()}{path.stem[1:].replace('-', ' ')}"
        yield "```text\n" + path.read_text().strip() + "\n```"


def main():
    folder = Path(sys.argv[1]).resolve()
    head = f"# Performance\n\nWritten by `benches/peers/report.py` from [{folder.name}](../{folder.relative_to(ROOT)})."
    (ROOT / "docs" / "performance.md").write_text("\n\n".join([head, *sections(folder)]) + "\n")


if __name__ == "__main__":
    main()
