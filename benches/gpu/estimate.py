#!/usr/bin/env python3
"""What BERT-base in f16 should take on an H200, from counted instructions and bytes: no GPU has been asked.

    benches/gpu/estimate.py            a table: the parts of each batch, and the goals
    benches/gpu/estimate.py --json     the figures alone

counts.json beside this script holds what each launch does: warp instructions, how many of them come after the wait
for the kernel in front, of all warps and of the longest, and bytes. They were counted by executing the PTX of
kernels/cuda. What a machine makes of them is below, each constant with where it comes from:

    [R] read on an H200 (device copy, one large product), not by this project's programs
    [D] the data sheet or the architecture
    [L] published measurements
    [A] assumed; the first run of benches/gpu/check.sh has to correct it

Each assumption has a range. The figures are for the middle; "low" and "high" take the better and the worse end of
all of them at once.
"""

import argparse
import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent

MULTIPROCESSORS = 132  # [D]
SCHEDULERS = 4 * MULTIPROCESSORS  # [D] one instruction a cycle each
MEMORY = 4.3e6  # [R] bytes a microsecond, device copy
PRODUCT = 790e6  # [R] FLOP a microsecond, f16, 8192 x 8192 x 8192 of random values

# [A] low, middle, high
CLOCK = (1830, 1700, 1500)  # cycles a microsecond; [D] 1,980 at most, less under load
# From the last write of a kernel until the next may read it, and until its first instruction has run.
GAP_PLAIN = (1.2, 1.5, 2.0)  # us, a node of a graph behind another; [L] 1.3 on an H100 between kernels that do nothing
GAP_OVERLAPPED = (0.5, 0.8, 1.2)  # us, the same with programmatic dependent launch: the blocks are there and wait
L2_TRIP = (0.18, 0.25, 0.35)  # us; [L] about 260 cycles on an idle H100, more from its far half
MEMORY_TRIP = (0.45, 0.6, 0.8)  # us; [L] about 480 cycles on an idle one
IPC_A_WARP = (0.45, 0.35, 0.25)  # instructions a cycle of one warp alone, unrolled code
IPC_MOST = (0.95, 0.85, 0.75)  # of a scheduler with many warps
STREAM = (0.95, 0.9, 0.85)  # of MEMORY, that an element-wise kernel reaches
L2_RATE = (7e6, 5.6e6, 4.5e6)  # bytes a microsecond, what all multiprocessors read from the L2 together
COPY = (1.2, 1.8, 2.5)  # us, a small copy to or from the host as a node of a graph
# A tile of a product pays for so many more steps of 64 along k: filling the pipeline, epilogue.
TILE_EXTRA_STEPS = (1.0, 1.5, 2.5)
# A product of the library for 33 to 64 rows: what it takes beyond gap, memory's latency and its weights.
LIBRARY_SMALL = (0.8, 1.2, 1.8)  # us
GRID_BARRIER = (0.7, 1.0, 1.5)  # us, of a kernel that stays on all multiprocessors

LAYERS, HIDDEN, FEED_FORWARD = 12, 768, 3072


class Machine:
    def __init__(self, end):
        self.end = end

    def __getattr__(self, name):
        return globals()[name][self.end]


class Counts:
    def __init__(self, path):
        self.file = json.loads(path.read_text())
        self.launches = {(each["batch"], each["step"]): each for each in self.file["launches"]}

    def of(self, batch, step):
        return self.launches[batch, step]


def few_rows_max():
    """Up to how many rows the engine takes its own products."""
    source = (HERE / "../../kernels/src/ops/skinny.rs").read_text()
    return int(re.search(r"SKINNY_ROWS_MAX: usize = (\d+)", source)[1])


def chain(machine, launch, trips):
    """Microseconds from where a kernel may read the results before it until its last write: round trips to the L2
    that depend on each other, then the instructions of the longest warp, or of all on a scheduler."""
    waves = -(-launch["blocks"] // MULTIPROCESSORS)
    of_a_scheduler = launch["after_wait"] / launch["blocks"] * waves / 4
    longest = launch["after_wait_of_a_warp"] / machine.IPC_A_WARP
    return trips * machine.L2_TRIP + max(longest, of_a_scheduler / machine.IPC_MOST) / machine.CLOCK


def weights(step):
    outer, inner = {
        "first queries, keys, values": (3 * HIDDEN, HIDDEN),
        "queries, keys, values": (3 * HIDDEN, HIDDEN),
        "attention output": (HIDDEN, HIDDEN),
        "feed-forward in": (FEED_FORWARD, HIDDEN),
        "feed-forward out": (HIDDEN, FEED_FORWARD),
        "pooler": (HIDDEN, HIDDEN),
    }.get(step, (0, 0))
    return 2 * outer * inner


# Round trips to the L2 that wait for one another: rows of x; for attention keys, then values.
TRIPS = {"attention": 2, "last attention": 3, "embedding": 2}

# Products whose blocks ask for a part of their weights only when they have begun to multiply (STEPS in skinny.cu).
STEPS_LATE = {("32 tokens", "feed-forward out")}


def few_tokens(machine, counts, batch):
    """A pass of our own products: (step, launches, microseconds each)."""
    steps = [("embedding", 1), ("first queries, keys, values", 1), ("queries, keys, values", LAYERS - 1)]
    steps += [("attention", LAYERS - 1), ("last attention", 1)]
    steps += [(step, LAYERS) for step in ("attention output", "feed-forward in", "feed-forward out")]
    steps += [("pooler", 1), ("classifier", 1)]
    parts = []
    for step, launches in steps:
        launch = counts.of(batch, step)
        # Rows of x, which each block reads from the L2.
        reading = max(launch["read_bytes"] - weights(step), 0) / machine.L2_RATE
        work = max(chain(machine, launch, TRIPS.get(step, 1)), reading)
        if (batch, step) in STEPS_LATE:
            work += machine.MEMORY_TRIP
        gap = machine.GAP_PLAIN if step == "embedding" else machine.GAP_OVERLAPPED
        # The weights are on their way before; they cannot come faster than the memory gives them.
        parts.append((step, launches, max(gap + work, weights(step) / MEMORY)))
    return parts


def small_by_library(machine, counts, batch):
    """A pass of the library's products for so few rows that each is the reading of its weights. Our kernels between
    them gain nothing from overlap: the library's end before they let anybody begin."""
    product = lambda step: machine.GAP_PLAIN + machine.MEMORY_TRIP + weights(step) / MEMORY + machine.LIBRARY_SMALL
    ours = lambda step: machine.GAP_PLAIN + chain(machine, counts.of(batch, step), TRIPS.get(step, 1))
    parts = [("embedding", 1, machine.GAP_PLAIN + chain(machine, counts.of(batch, "embedding"), 2))]
    parts += [(step, LAYERS, product(step)) for step in ("queries, keys, values", "attention output")]
    parts += [(step, LAYERS, product(step)) for step in ("feed-forward in", "feed-forward out")]
    parts += [("attention", LAYERS - 1, ours("attention")), ("last attention", 1, ours("last attention"))]
    parts += [("norm", 2 * LAYERS, ours("norm")), ("bias, GELU", LAYERS, ours("bias, GELU"))]
    parts += [("gather, pooler, classifier", 4, product("pooler"))]
    return parts


def product(machine, rows, outer, inner):
    """Microseconds of a large product: its share of waves of 128 x 256 tiles, and the pipeline's filling, both
    against the product that PRODUCT was read from."""

    def efficiency(rows, outer, inner):
        tiles = -(-rows // 128) * -(-outer // 256)
        waves = -(-tiles // MULTIPROCESSORS) * MULTIPROCESSORS
        return tiles / waves * (inner / 64) / (inner / 64 + machine.TILE_EXTRA_STEPS)

    return 2 * rows * outer * inner / PRODUCT * efficiency(8192, 8192, 8192) / efficiency(rows, outer, inner)


def many_tokens(machine, counts, batch, tokens):
    """A pass over thousands of tokens: arithmetic for the products, memory or instructions for the rest."""
    x = 2 * tokens * HIDDEN

    def ours(step, moved):
        launch = counts.of(batch, step)
        instructions = launch["warp_instructions"] / (SCHEDULERS * machine.CLOCK * machine.IPC_MOST)
        return machine.GAP_PLAIN + max(moved / (MEMORY * machine.STREAM), instructions)

    large = lambda outer, inner: machine.GAP_PLAIN + product(machine, tokens, outer, inner)
    return [
        ("embedding", 1, ours("embedding", 2 * x)),
        ("queries, keys, values", LAYERS - 1, large(3 * HIDDEN, HIDDEN)),
        ("attention", LAYERS - 1, ours("attention", 4 * x)),
        ("attention output", LAYERS - 1, large(HIDDEN, HIDDEN)),
        ("norm", 2 * (LAYERS - 1), ours("norm", 2 * x)),
        ("feed-forward in", LAYERS - 1, large(FEED_FORWARD, HIDDEN)),
        ("bias, GELU", LAYERS - 1, ours("bias, GELU", 8 * x)),
        ("feed-forward out", LAYERS - 1, large(HIDDEN, FEED_FORWARD)),
        ("last keys, values", 1, large(2 * HIDDEN, HIDDEN)),
        ("last attention", 1, ours("last attention", 2 * x)),
        # One row a sequence from there on.
        ("last layer's rows", 10, machine.GAP_PLAIN + machine.MEMORY_TRIP + machine.LIBRARY_SMALL + 1),
    ]


def persistent(machine, counts, batch):
    """A pass in one launch: the same work behind barriers of the whole grid instead of launches."""
    parts = few_tokens(machine, counts, batch)
    launches = sum(count for _, count, _ in parts)
    work = total(parts) - launches * machine.GAP_OVERLAPPED
    return max(work + launches * machine.GRID_BARRIER, LAYERS * 14.2e6 / MEMORY)


def total(parts):
    return sum(count * each for _, count, each in parts)


def figures(counts, end):
    machine = Machine(end)
    own_max = few_rows_max()
    result = {}
    query = few_tokens(machine, counts, "12 tokens")
    result["query_12_tokens_ms"] = total(query) / 1e3
    result["query_12_tokens_with_copies_ms"] = (total(query) + 2 * machine.COPY) / 1e3
    result["query_12_tokens_one_launch_ms"] = persistent(machine, counts, "12 tokens") / 1e3
    result["query_32_tokens_ms"] = total(few_tokens(machine, counts, "32 tokens")) / 1e3
    for tokens in (48, 64):
        library = total(small_by_library(machine, counts, f"{tokens} tokens"))
        # Above the rows that our own products take, a pass is the library's by definition.
        assert tokens > own_max, "counts of our own products for so many rows are needed"
        result[f"query_{tokens}_tokens_ms"] = library / 1e3
    tokens = 128 * 128
    large = many_tokens(machine, counts, "128 x 128 tokens", tokens)
    # All of BERT, with attention and with the part of the last layer that is left out: what a user gets.
    flop = LAYERS * tokens * (2 * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * FEED_FORWARD) + 4 * 128 * HIDDEN)
    result["batch_128x128_ms"] = total(large) / 1e3
    result["peak_share_128x128"] = flop / total(large) / PRODUCT
    # Of what is computed, products alone: ten of twelve parts of the last layer are for one row a sequence.
    done = LAYERS * tokens * 2 * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * FEED_FORWARD) * (1 - 10 / 12 / LAYERS)
    result["products_share_128x128"] = done / total(large) / PRODUCT
    short = many_tokens(machine, counts, "1365 x 12 tokens", 1365 * 12)
    result["batch_1365x12_ms"] = total(short) / 1e3
    return result, {"12 tokens": query, "128 x 128 tokens": large}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", action="store_true", help="the middle figures, as one JSON object")
    arguments.add_argument("--counts", type=pathlib.Path, default=HERE / "counts.json")
    given = arguments.parse_args()
    counts = Counts(given.counts)
    low, middle, high = (figures(counts, end)[0] for end in range(3))
    if given.json:
        print(json.dumps({name: round(value, 4) for name, value in middle.items()}, indent=2))
        return
    print(f"counts of {counts.file['date']}, kernels at {counts.file['commit']}; nothing here was measured on a GPU\n")
    for batch, parts in figures(counts, 1)[1].items():
        print(f"{batch}: {total(parts) / 1e3:.3f} ms")
        for step, launches, each in parts:
            print(f"    {step:<30} {launches:3} x {each:8.2f} us = {launches * each / 1e3:8.3f} ms")
    print(f"\n{'':<34} {'low':>8} {'middle':>8} {'high':>8}")
    for name in middle:
        print(f"{name:<34} {low[name]:8.3f} {middle[name]:8.3f} {high[name]:8.3f}")
    print("\ngoals: query_12_tokens_ms <= 0.15; peak_share_128x128 >= 0.70, of the rate that one large product reaches")


if __name__ == "__main__":
    main()
