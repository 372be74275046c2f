"""What the scripts here share: where things lie, the texts, and ONNX Runtime as its users run it."""

import json
import os
import subprocess
from pathlib import Path

import numpy
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SNIPS = ROOT.parent / "shared" / "data" / "snips"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# transformers writes 1e30 for "no limit".
NO_LIMIT = 1e20


def available_cores():
    return len(os.sched_getaffinity(0))


def read_texts(count=None):
    """The first `count` texts of SNIPS, those of the test set first; all of the test set when not given."""
    texts = []
    for name in ("test.jsonl", "train.jsonl"):
        lines = (SNIPS / name).read_text(encoding="utf-8").splitlines()
        # The programs compared take one text a line.
        texts += [" ".join(json.loads(line)["text"].split()) for line in lines]
        if len(texts) >= (count or 1):
            return texts[:count]
    raise SystemExit(f"SNIPS has {len(texts)} texts, {count} were asked for")


def config_of(checkpoint):
    return json.loads((Path(checkpoint) / "config.json").read_text())


def labels_of(checkpoint):
    names = config_of(checkpoint)["id2label"]
    return [names[str(index)] for index in range(len(names))]


def tokenizer_of(checkpoint):
    """The fast tokenizer, cutting at the model's length and padding to the longest of a batch."""
    checkpoint = Path(checkpoint)
    config = config_of(checkpoint)
    limit = config["max_position_embeddings"]
    settings = checkpoint / "tokenizer_config.json"
    if settings.exists():
        stored = json.loads(settings.read_text()).get("model_max_length") or NO_LIMIT
        limit = min(limit, int(stored)) if stored < NO_LIMIT else limit
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    pad = config.get("pad_token_id") or 0
    tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad))
    return tokenizer


def feed(tokenizer, texts):
    """A padded batch as the three inputs of the model, each [texts, tokens]."""
    encoded = tokenizer.encode_batch(texts)
    columns = (
        [text.ids for text in encoded],
        [text.attention_mask for text in encoded],
        [text.type_ids for text in encoded],
    )
    return {name: numpy.array(column, dtype=numpy.int64) for name, column in zip(INPUTS, columns)}


def session(path, threads, spinning=True):
    """An ONNX Runtime session with all graph optimisations; by default its threads spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def machine():
    """What a result must say about where it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {"cpu": names[0] if names else "unknown", "cores": available_cores(), "commit": commit.stdout.strip() or "unknown"}
