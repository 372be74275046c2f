#!/usr/bin/env python3
"""PyTorch against the CUDA engine on the same card, checkpoint and texts, interleaved in one run.

    torch_baseline.py GPU_BENCH DIRECTORY [ROUNDS]

GPU_BENCH is the program built from benches/gpu; it writes a BERT-base checkpoint with random
weights and the token ids of all batches into DIRECTORY. Contenders, each from token ids on the
host to logits on the host, in float16:

  ours      the CUDA engine, ragged
  eager     transformers' BERT with SDPA attention, padded to the longest of the batch
  compiled  the same under torch.compile(mode="reduce-overhead"), that is with CUDA graphs, padded
            to a multiple of 32 so that it compiles few shapes

For each size of batch, each round times all contenders one after the other; printed are medians over
the rounds, and the ratios of the medians, as soon as a size is done. Exits with 1 when the logits of
ours and eager do not agree. A model that does not compile is said and left out.
"""

import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch._dynamo
from transformers import BertForSequenceClassification


class Ours:
    """The bench program, which runs one size of batch a line."""

    def __init__(self, program, directory):
        command = [program, "drive", str(directory)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        line = self.process.stdout.readline()
        if line.strip() != "ready":
            raise SystemExit(f"{command} says {line!r}")

    def time(self, size):
        self.process.stdin.write(f"{size}\n")
        wall, device = self.process.stdout.readline().split()
        return float(wall), float(device)


def padded(batch, multiple):
    """[ids, mask] of a batch on the host, as wide as its longest text, rounded up."""
    width = max(map(len, batch))
    width += -width % multiple
    ids = torch.zeros(len(batch), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return ids.pin_memory(), mask.pin_memory()


def forward(model, inputs):
    ids, mask = (tensor.cuda(non_blocking=True) for tensor in inputs)
    return model(input_ids=ids, attention_mask=mask).logits.cpu()


def timed(model, batches):
    torch.cuda.synchronize()
    start = time.perf_counter()
    for inputs in batches:
        forward(model, inputs)
    return (time.perf_counter() - start) / len(batches)


def agreement(directory, model, batches):
    """Largest difference of logits between ours and eager, of the largest logit."""
    ours = json.loads((directory / "logits.json").read_text())
    worst = 0.0
    for size, rows in ours.items():
        expected = forward(model, batches[size][0]).float()
        difference = (torch.tensor(rows) - expected).abs().max() / expected.abs().max()
        worst = max(worst, float(difference))
    return worst


@torch.inference_mode()
def main():
    program, directory = sys.argv[1], Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    ours = Ours(program, directory)
    ids = json.loads((directory / "batches.json").read_text())
    model = BertForSequenceClassification.from_pretrained(
        directory, dtype=torch.float16, attn_implementation="sdpa"
    )
    model = model.cuda().eval()
    # Each width of each size is a shape of its own; beyond the limit torch would run eagerly.
    torch._dynamo.config.recompile_limit = 256
    compiled = torch.compile(model, mode="reduce-overhead", dynamic=False)
    eager_batches = {size: [padded(batch, 1) for batch in sets] for size, sets in ids.items()}
    compiled_batches = {size: [padded(batch, 32) for batch in sets] for size, sets in ids.items()}
    difference = agreement(directory, model, eager_batches)
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    print(f"logits, ours against eager: {difference:.1e} of the largest")
    print("texts | ours ms | device ms | eager ms | compiled ms | eager/ours | compiled/ours")
    times = {}
    for size in ids:
        times[size] = measure(ours, model, compiled, size, eager_batches, compiled_batches, rounds)
        (directory / "times.json").write_text(json.dumps(times))
        ms = {name: 1e3 * statistics.median(values) for name, values in times[size].items()}
        print(
            f"{size} | {ms['ours']:.3f} | {ms['device']:.3f} | {ms['eager']:.3f} | "
            f"{ms['compiled']:.3f} | {ms['eager'] / ms['ours']:.2f} | "
            f"{ms['compiled'] / ms['ours']:.2f}"
        )
    return 0 if difference <= 2e-2 else 1


def measure(ours, model, compiled, size, eager_batches, compiled_batches, rounds):
    """Seconds a batch of each contender in each round; NaN for a model that does not compile."""
    start = time.perf_counter()
    for _ in range(3):
        timed(model, eager_batches[size])
    try:
        for _ in range(3):
            timed(compiled, compiled_batches[size])
    except Exception as error:  # whatever the compiler's parts may raise
        print(f"torch.compile fails: {error}"[:2000], file=sys.stderr)
        compiled = None
    print(f"warm-up of {size}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    found = {"ours": [], "device": [], "eager": [], "compiled": []}
    for _ in range(rounds):
        wall, device = ours.time(size)
        found["ours"].append(wall)
        found["device"].append(device)
        found["eager"].append(timed(model, eager_batches[size]))
        seconds = timed(compiled, compiled_batches[size]) if compiled else math.nan
        found["compiled"].append(seconds)
    return found


if __name__ == "__main__":
    sys.exit(main())
