"""Writes folders as teams bring them, and what Hugging Face transformers makes of each.

    python tests/folders/make.py                 all cases of cases.py, into tests/folders/golden.json
    python tests/folders/make.py --folder DIR    another folder: prints its case, to be put into golden.json

Run it in the environment of tests/golden/requirements.txt. A case is a set of small files and the names and shapes of the
model's tensors. The weights are no files: `weights` computes them from the tensors' names, here and in tests/it/folders.rs
alike. `files` of a case are text, or a base file with a JSON merge patch (RFC 7386).
"""

import argparse
import copy
import hashlib
import json
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

import cases
import texts

HERE = Path(__file__).parent
# Single texts whose logits are compared: a few are enough to tell models apart.
CLASSIFIED = 6


def mixed(seed, count):
    """`count` pseudo-random numbers of 64 bits: splitmix64, counted from `seed`."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def fnv1a(text):
    """FNV-1a of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def weights(name, shape):
    """The values of a tensor, from its name alone. Scales of norms are near 1, matrices keep the size of what they multiply."""
    count = int(np.prod(shape))
    unit = (mixed(fnv1a(name), count) >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0
    if len(shape) == 1:
        is_scale = name.endswith(("weight", "gamma"))
        values = unit * 0.1 + (1.0 if is_scale else 0.0)
    elif "embeddings" in name and "project" not in name:
        values = unit
    else:
        values = unit * np.sqrt(6.0 / shape[1])
    return values.astype(np.float32).reshape(shape)


def merge(target, patch):
    """JSON merge patch."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merge(target.get(key), value)
    return target


def content(spec):
    """The text of a file of a case."""
    if "text" in spec:
        return spec["text"]
    base = (HERE / "base" / spec["base"]).read_text(encoding="utf-8")
    if "patch" not in spec:
        return base
    return json.dumps(merge(json.loads(base), spec["patch"]), ensure_ascii=False)


def tensors(folder, config):
    """Names and shapes of the tensors of the model that a configuration describes."""
    model = AutoModelForSequenceClassification.from_config(config)
    return {name: list(value.shape) for name, value in model.state_dict().items() if "position_ids" not in name and "token_type_ids" not in name}


def tokens(tokenizer, length, text):
    """Ids and token types of a text or a pair, truncated to what the model takes."""
    if isinstance(text, str):
        encoded = tokenizer([text], truncation=True, max_length=length)
    else:
        # In lists, since transformers drops an empty second text that is given as a string.
        encoded = tokenizer([text[0]], [text[1]], truncation=True, max_length=length)
    ids = encoded["input_ids"][0]
    types = encoded["token_type_ids"][0] if "token_type_ids" in encoded else [0] * len(ids)
    return ids, types, encoded


def run(folder, shapes):
    """What transformers makes of a folder."""
    config = AutoConfig.from_pretrained(folder)
    if shapes is None:
        shapes = tensors(folder, config)
    save_file({name: weights(name, shape) for name, shape in shapes.items()}, str(folder / "model.safetensors"), metadata={"format": "pt"})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    model.eval()
    missing = {key: list(value) for key, value in info.items() if key != "error_msgs" and value}
    if missing.get("missing_keys") or missing.get("mismatched_keys"):
        raise ValueError(f"transformers did not find all tensors: {missing}")
    positions = config.max_position_embeddings
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1
    length = min(tokenizer.model_max_length, positions)
    all_tokens = [tokens(tokenizer, length, text) for text in texts.TEXTS]
    # Token types count only for pairs: those of single texts are 0.
    ids = [[ids, types] if any(types) else ids for ids, types, _ in all_tokens]
    chosen = [n for n, text in enumerate(texts.TEXTS) if isinstance(text, str) and len(text.split()) > 2][:CLASSIFIED]
    chosen += [n for n, text in enumerate(texts.TEXTS) if not isinstance(text, str)][:2]
    logits = []
    for n in chosen:
        inputs = {key: torch.tensor(value) for key, value in all_tokens[n][2].items()}
        try:
            with torch.no_grad():
                values = model(**inputs).logits[0].tolist()
        except (IndexError, RuntimeError) as error:
            values = f"{type(error).__name__}: {str(error)[:100]}"
        logits.append([n, values if isinstance(values, str) else [float(f"{value:.9g}") for value in values]])
    return {"length": length, "labels": [str(config.id2label[n]) for n in range(config.num_labels)], "ids": ids, "logits": logits}


def case(name, files, shapes=None):
    """A case with what transformers makes of it."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for file, spec in files.items():
            (folder / file).write_text(content(spec), encoding="utf-8")
        found = {"name": name, "files": files}
        try:
            config = AutoConfig.from_pretrained(folder)
            found["tensors"] = shapes or tensors(folder, config)
            found.update(run(folder, found["tensors"]))
        except Exception as error:  # noqa: BLE001 - whatever it raises is its answer
            found["fails"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
    return found


def shared(all_cases):
    """Puts what many cases share, ids and tensors, under names."""
    pools = {"ids": {}, "tensors": {}}
    for one in all_cases:
        for key, pool in pools.items():
            if key in one:
                text = json.dumps(one[key], separators=(",", ":"))
                name = hashlib.sha256(text.encode()).hexdigest()[:12]
                pool[name] = one[key]
                one[key] = name
    return pools


def write(all_cases):
    pools = shared(all_cases)
    compact = {"separators": (",", ":"), "ensure_ascii": True}
    packages = ("torch", "transformers", "tokenizers")
    parts = {
        "made_with": json.dumps({name: version(name) for name in packages}),
        "texts": "[\n" + ",\n".join(json.dumps(text, **compact) for text in texts.TEXTS) + "\n]",
    }
    for key, pool in pools.items():
        parts[key] = "{\n" + ",\n".join(f"{json.dumps(name)}:{json.dumps(value, **compact)}" for name, value in sorted(pool.items())) + "\n}"
    parts["cases"] = "[\n" + ",\n".join(json.dumps(one, **compact) for one in all_cases) + "\n]"
    body = ",\n".join(f"{json.dumps(key)}:{value}" for key, value in parts.items())
    (HERE / "golden.json").write_text("{" + body + "}\n", encoding="ascii")


def of_folder(directory):
    """The case of somebody's folder."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")
    files = {name: {"text": (directory / name).read_text(encoding="utf-8")} for name in names if (directory / name).exists()}
    return case(directory.name, files)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--bases", action="store_true", help="make the base files anew")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if arguments.folder:
        print(json.dumps(of_folder(arguments.folder)))
        return
    if arguments.bases:
        cases.write_bases(HERE / "base")
    made = []
    for name, files in cases.all_cases():
        made.append(case(name, copy.deepcopy(files)))
        outcome = made[-1].get("fails", "loads")
        print(f"{name}: {outcome}", flush=True)
    write(made)
    print(f"{len(made)} cases, {sum('fails' in one for one in made)} fail")


if __name__ == "__main__":
    main()
