"""A BERT classifier with random weights, as slow as is wished: with the embedded one, no load that fits on this machine
would need a second replica."""

import array
import json
import os
import random
import shutil
import struct

EMBEDDED = os.path.join(os.path.dirname(__file__), "../../../models/intent-snips")


def shapes(config):
    """Every tensor with its shape, in the layout of Hugging Face."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]

    def linear(name, outputs, inputs):
        return {f"{name}.weight": [outputs, inputs], f"{name}.bias": [outputs]}

    def norm(name):
        return {f"{name}.LayerNorm.weight": [hidden], f"{name}.LayerNorm.bias": [hidden]}

    found = {
        f"bert.embeddings.{kind}_embeddings.weight": [config[size], hidden]
        for kind, size in (
            ("word", "vocab_size"),
            ("position", "max_position_embeddings"),
            ("token_type", "type_vocab_size"),
        )
    }
    found.update(norm("bert.embeddings"))
    for layer in range(config["num_hidden_layers"]):
        place = f"bert.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            found.update(linear(f"{place}.attention.self.{part}", hidden, hidden))
        found.update(linear(f"{place}.attention.output.dense", hidden, hidden))
        found.update(norm(f"{place}.attention.output"))
        found.update(linear(f"{place}.intermediate.dense", inner, hidden))
        found.update(linear(f"{place}.output.dense", hidden, inner))
        found.update(norm(f"{place}.output"))
    found.update(linear("bert.pooler.dense", hidden, hidden))
    found.update(linear("classifier", len(config["id2label"]), hidden))
    return found


def write(folder, layers, hidden):
    """Writes a checkpoint with the tokenizer and labels of the embedded one."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(EMBEDDED, "config.json")) as file:
        config = json.load(file)
    config.update(
        num_hidden_layers=layers, hidden_size=hidden, intermediate_size=4 * hidden, num_attention_heads=hidden // 64
    )
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    for name in os.listdir(EMBEDDED):
        if name.startswith(("tokenizer", "vocab", "special_tokens")):
            shutil.copy(os.path.join(EMBEDDED, name), folder)
    # The same numbers in another order: a million of them, from a start of its own for each tensor.
    source = random.Random(1)
    numbers = array.array("f", (source.gauss(0, 0.05) for _ in range(1 << 20)))
    header, offset = {}, 0
    with open(os.path.join(folder, "tensors"), "wb") as file:
        for name, shape in shapes(config).items():
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            if "LayerNorm.weight" in name:
                values = array.array("f", [1.0]) * count
            else:
                start = source.randrange(len(numbers))
                values = ((numbers[start:] + numbers[:start]) * (count // len(numbers) + 1))[:count]
            values.tofile(file)
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * count]}
            offset += 4 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        with open(os.path.join(folder, "tensors"), "rb") as tensors:
            shutil.copyfileobj(tensors, file)
    os.remove(os.path.join(folder, "tensors"))
