"""Exports a BERT classifier for ONNX Runtime, as fast as it will go there.

    target/peers/venv/bin/python benches/peers/export.py CHECKPOINT_DIR OUT_DIR

Writes to OUT_DIR `fp32.onnx`, `int8.onnx` and `export.json`, which says what was tried, how fast it
was and how far from torch; and `plain/`, a directory with the export as torch leaves it, for servers
that optimise it themselves.

Both models are tried in two forms and the faster one is kept: fused by ONNX Runtime's own script for
transformers (attention, embeddings with LayerNorm, GELU with bias), or left to what a session fuses
when it loads a model. For int8 neither is faster everywhere: fused wins with one text, the other
with many.
"""

import argparse
import json
import logging
import math
import os
import random
import shutil
import time
import warnings
from pathlib import Path

import numpy
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers import optimizer
from transformers import AutoModelForSequenceClassification

from common import INPUTS, available_cores, config_of, feed, read_texts, session, tokenizer_of

FP32_ERROR_MAX = 1e-3
BATCH_SIZES = (1, 8, 32)
BATCHES = 4
PAUSE = 0.05


class Logits(torch.nn.Module):
    """The model with tensors in and one tensor out, which is what an export takes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        return self.model(**dict(zip(INPUTS, inputs))).logits


def load(checkpoint):
    # The fusions know eager attention; with SDPA's graph they find nothing to fuse.
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def export(model, path):
    """torch's export by tracing: of what the newer one writes, the fusions find a part only."""
    ids = torch.ones(2, 8, dtype=torch.int64)
    # With a mask of ones only, the trace would have no padding in it.
    mask = ids.clone()
    mask[1, 5:] = 0
    axes = {name: {0: "batch", 1: "sequence"} for name in INPUTS} | {"logits": {0: "batch"}}
    torch.onnx.export(
        Logits(model).eval(),
        (ids, mask, torch.zeros_like(ids)),
        str(path),
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )


def fuse(plain, path, config):
    fused = optimizer.optimize_model(
        str(plain), model_type="bert", num_heads=config["num_attention_heads"], hidden_size=config["hidden_size"], opt_level=0
    )
    counts = fused.get_fused_operator_statistics()
    layers = config["num_hidden_layers"]
    if counts["EmbedLayerNormalization"] != 1 or counts["Attention"] != layers:
        raise SystemExit(f"not every layer was fused: {counts}")
    fused.save_model_to_file(str(path))
    return {name: count for name, count in counts.items() if count}


def quantise(source, path):
    """Dynamic quantisation: weights int8 with a scale a column, activations as they come.

    Per-channel costs nothing measurable in time and is closer; unsigned weights take nearly twice
    as long on a CPU with VNNI.
    """
    # Without a default type it refuses to guess the type of what the fused operations give.
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(
        str(source), str(path), per_channel=True, reduce_range=False, weight_type=QuantType.QInt8, extra_options=options
    )


def measure(paths, feeds, rounds, threads):
    """Seconds a batch of each model at each size: the shortest of several rounds, models taking turns."""
    sessions = {name: session(path, threads) for name, path in paths.items()}
    best = {name: dict.fromkeys(feeds, math.inf) for name in sessions}
    for _ in range(rounds):
        for name, one in sessions.items():
            # ONNX Runtime's threads spin for a while after a run: not into the other model's turn.
            time.sleep(PAUSE)
            for size, batches in feeds.items():
                start = time.perf_counter()
                for batch in batches:
                    one.run(None, batch)
                best[name][size] = min(best[name][size], (time.perf_counter() - start) / len(batches))
    return best


def compare(path, batches, expected, threads):
    """The largest difference of a logit from torch's, and the share of labels that are the same."""
    one = session(path, threads)
    found = numpy.concatenate([one.run(None, batch)[0] for batch in batches])
    return {
        "error": float(numpy.abs(found - expected).max()),
        "labels_equal": float((found.argmax(1) == expected.argmax(1)).mean()),
    }


def choose(kind, candidates, out, feeds, expected, flags):
    """Keeps the candidate that is fastest on the whole (geometric mean over the sizes) as `kind`.onnx."""
    times = measure(candidates, feeds, flags.rounds, flags.threads)
    report = {}
    for name, path in candidates.items():
        report[name] = {"seconds": times[name]} | compare(path, feeds[max(feeds)], expected, flags.threads)
        print(kind, name, json.dumps(report[name]))
    if kind == "fp32":
        wrong = [name for name in report if not report[name]["error"] <= FP32_ERROR_MAX]
        if wrong:
            raise SystemExit(f"{wrong}: logits differ from torch's by more than {FP32_ERROR_MAX}")
    fastest = min(report, key=lambda name: math.prod(report[name]["seconds"].values()))
    shutil.copyfile(candidates[fastest], out / f"{kind}.onnx")
    return {"kept": fastest, "tried": report}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


@torch.no_grad()
def main():
    flags = parse()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(flags.threads)
    plain, work = flags.out / "plain", flags.out / "work"
    # Infinity leaves its own optimised model there and would go on with it.
    shutil.rmtree(plain, ignore_errors=True)
    for directory in (plain, work):
        directory.mkdir(parents=True, exist_ok=True)
    for path in flags.checkpoint.glob("*.json"):
        shutil.copyfile(path, plain / path.name)

    model = load(flags.checkpoint)
    export(model, plain / "model.onnx")
    fused = fuse(plain / "model.onnx", work / "fused.onnx", config_of(flags.checkpoint))
    quant_pre_process(str(plain / "model.onnx"), str(work / "prepared.onnx"), skip_symbolic_shape=True)
    quantise(work / "fused.onnx", work / "fused-int8.onnx")
    quantise(work / "prepared.onnx", work / "plain-int8.onnx")

    tokenizer = tokenizer_of(flags.checkpoint)
    draw = random.Random(1)
    texts = read_texts()
    feeds = {size: [feed(tokenizer, draw.sample(texts, size)) for _ in range(BATCHES)] for size in BATCH_SIZES}
    tensors = [{name: torch.from_numpy(column) for name, column in batch.items()} for batch in feeds[max(feeds)]]
    expected = numpy.concatenate([model(**batch).logits.numpy() for batch in tensors])
    del model

    fp32 = {"plain": plain / "model.onnx", "fused": work / "fused.onnx"}
    int8 = {"plain": work / "plain-int8.onnx", "fused": work / "fused-int8.onnx"}
    report = {"threads": flags.threads, "fused": fused}
    report["fp32"] = choose("fp32", fp32, flags.out, feeds, expected, flags)
    report["int8"] = choose("int8", int8, flags.out, feeds, expected, flags)
    (flags.out / "export.json").write_text(json.dumps(report, indent=1) + "\n")
    shutil.rmtree(work)
    print(f"kept: fp32 {report['fp32']['kept']}, int8 {report['int8']['kept']}")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
