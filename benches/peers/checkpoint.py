"""Writes a BERT classifier with random weights, to measure speed with.

    target/peers/venv/bin/python benches/peers/checkpoint.py base target/peers/checkpoints/base

Its tokenizer is that of the embedded model, so that texts get as many tokens as with a trained
model, with unused entries up to the 30,522 of Google's vocabulary, so that the file is as large as
that of BERT-base (440 MB). The weights are wider than a fresh BERT's, so that texts differ in
their logits and a wrong answer shows.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

MODEL = Path(__file__).resolve().parents[2] / "models" / "intent-snips"
VOCABULARY = 30_522
# layers, hidden, heads, intermediate
SHAPES = {"base": (12, 768, 12, 3072), "small": (4, 256, 4, 1024)}


def tensors(shape, labels):
    """Every tensor of a BERT classifier, by its name in Hugging Face layout."""
    layers, hidden, _, intermediate = shape
    random = np.random.default_rng(1)

    def normal(*size, deviation):
        return (random.standard_normal(size, dtype=np.float32) * deviation).astype(np.float32)

    found = {}

    def linear(name, outputs, inputs, gain=1.0):
        found[f"{name}.weight"] = normal(outputs, inputs, deviation=gain / inputs**0.5)
        found[f"{name}.bias"] = normal(outputs, deviation=0.05)

    def norm(name):
        found[f"{name}.weight"] = 1 + normal(hidden, deviation=0.1)
        found[f"{name}.bias"] = normal(hidden, deviation=0.1)

    for name, rows in [("word", VOCABULARY), ("position", 512), ("token_type", 2)]:
        name = f"bert.embeddings.{name}_embeddings.weight"
        found[name] = normal(rows, hidden, deviation=0.5 if rows == VOCABULARY else 0.1)
    norm("bert.embeddings.LayerNorm")
    for index in range(layers):
        layer = f"bert.encoder.layer.{index}"
        for part in ["query", "key", "value"]:
            linear(f"{layer}.attention.self.{part}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", intermediate, hidden)
        linear(f"{layer}.output.dense", hidden, intermediate)
        norm(f"{layer}.output.LayerNorm")
    linear("bert.pooler.dense", hidden, hidden)
    linear("classifier", labels, hidden, gain=3.0)
    return found


def tokenizer():
    """The embedded model's tokenizer with unused entries at the end."""
    content = json.loads((MODEL / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    for index in range(len(vocabulary), VOCABULARY):
        vocabulary[f"[unused{index}]"] = index
    return content


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    layers, hidden, heads, intermediate = SHAPES[arguments.shape]
    config = json.loads((MODEL / "config.json").read_text())
    config |= {
        "_name_or_path": arguments.shape,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "max_position_embeddings": 512,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "torch_dtype": "float32",
        "vocab_size": VOCABULARY,
    }
    directory = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer()))
    settings = json.loads((MODEL / "tokenizer_config.json").read_text())
    settings["model_max_length"] = 512
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    save_file(
        tensors(SHAPES[arguments.shape], len(config["id2label"])),
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )


if __name__ == "__main__":
    main()
