"""Writes the golden files: what Hugging Face transformers answers on the test checkpoints.

Run from anywhere, in an environment with requirements.txt; see README.md.
"""

import argparse
import hashlib
import json
import re
import subprocess
import warnings
from importlib.metadata import version
from pathlib import Path

import tokenizers
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

import texts as made_texts
from texts import expand

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RANDOM = ["base", "cased", "multilabel", "bf16"]
EMBEDDED = "intent-snips"
# What float32 arithmetic may cost: the golden logits must be this close to those of float64, or a
# comparison to 1e-4 would measure the checkpoint instead of the engine.
FLOAT32_ERROR_MAX = 2e-5
# The slow tokenizer is known to differ: README.md says where.
DIFFERENCES_SHOWN = 5
TOKENIZER_FILES = re.compile(r"tokenizer\.json|tokenizer_config\.json|vocab\.txt")
ALL_FILES = re.compile(rf"config\.json|.*\.safetensors(\.index\.json)?|{TOKENIZER_FILES.pattern}")


def checkpoint(name):
    """The directory of a checkpoint; random ones are written afresh."""
    if name == EMBEDDED:
        return ROOT / "models" / EMBEDDED
    directory = ROOT / "target" / "golden" / name
    command = ["cargo", "run", "--quiet", "--example", "test_checkpoint", "--", name, str(directory)]
    subprocess.run(command, cwd=ROOT, check=True)
    return directory


def digest(directory, pattern):
    """One checksum over the model's files of these names; tests/it/support/golden.rs computes it, too."""
    total = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if pattern.fullmatch(path.name)):
        total.update(path.name.encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def provenance(directory, pattern):
    packages = ("torch", "transformers", "tokenizers")
    return {"sha256": digest(directory, pattern), "made_with": {name: version(name) for name in packages}}


def length_max(directory):
    """Tokens the model has positions for."""
    return json.loads((directory / "config.json").read_text())["max_position_embeddings"]


def rounded(values):
    """Nine significant digits, which tell any two 32-bit floats apart."""
    return [float(f"{value:.9g}") for value in values]


def write(path, head, key, lines):
    """Compact JSON with one entry of `key` a line; ASCII only, so no control or bidi character stands raw in the tree."""
    compact = {"separators": (",", ":"), "ensure_ascii": True}
    head = "".join(f"{json.dumps(name)}:{json.dumps(value, **compact)},\n" for name, value in head.items())
    body = ",\n".join(json.dumps(line, **compact) for line in lines)
    path.write_text(f"{{{head}{json.dumps(key)}:[\n{body}\n]}}\n", encoding="ascii")


def tokenization(name, directory, texts):
    """Ids of every text with special tokens, cut to what the model takes; the whole length of those that were cut."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    whole = [tokenizer(text, verbose=False)["input_ids"] for text in texts]
    limit = length_max(directory)
    lines = [tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in texts]
    stored = directory / "tokenizer.json"
    if stored.exists():
        direct = tokenizers.Tokenizer.from_file(str(stored))
        direct.no_truncation()
        direct.no_padding()
        compare(f"{name}: tokenizer.json without transformers", texts, whole, [direct.encode(text).ids for text in texts])
    vocabulary = directory / "vocab.txt"
    if vocabulary.exists():
        options = json.loads((directory / "tokenizer_config.json").read_text())
        options = {key: options[key] for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars") if key in options}
        slow = BertTokenizerLegacy(str(vocabulary), **options)
        compare(f"{name}: slow tokenizer", texts, whole, [slow(text, verbose=False)["input_ids"] for text in texts])
    cut = {index: len(ids) for index, ids in enumerate(whole) if len(ids) > limit}
    head = provenance(directory, TOKENIZER_FILES) | {"length_max": limit, "cut": cut}
    write(HERE / f"{name}.ids.json", head, "ids", lines)


def compare(what, texts, expected, found):
    different = [index for index, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]]
    print(f"{what}: {len(different)} of {len(texts)} differ")
    for index in different[:DIFFERENCES_SHOWN]:
        print(f"    {index} {texts[index][:40]!a} {expected[index][:12]} {found[index][:12]}")


def load(directory):
    options = {"dtype": torch.float32, "attn_implementation": "eager", "output_loading_info": True}
    model, loading = AutoModelForSequenceClassification.from_pretrained(directory, **options)
    problems = {what: keys for what, keys in loading.items() if keys}
    if problems:
        raise SystemExit(f"{directory}: transformers could not load every tensor: {problems}")
    return model.eval()


@torch.no_grad()
def logits(name, directory, texts):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = load(directory)
    limit = length_max(directory)
    inputs = [tokenizer(expand(text), truncation=True, max_length=limit, return_tensors="pt") for text in texts["classification"]]
    # As lists: given two strings of which the second is empty, transformers drops the second segment.
    pairs = [tokenizer([expand(a)], [expand(b)], truncation=True, max_length=limit, return_tensors="pt") for a, b in texts["pairs"]]
    answers = [model(**tensors).logits[0].tolist() for tensors in inputs + pairs]
    scores = pipeline_scores(model, tokenizer, limit, texts)

    exact = model.double()
    error = max(abs(a - b) for tensors, answer in zip(inputs + pairs, answers) for a, b in zip(exact(**tensors).logits[0].tolist(), answer))
    spread = max(max(column) - min(column) for column in zip(*answers[: len(inputs)]))
    largest = max(abs(value) for answer in answers for value in answer)
    print(f"{name}: float32 is within {error:.1e} of float64; a logit varies by up to {spread:.1f}; the largest is {largest:.1f}")
    if error > FLOAT32_ERROR_MAX:
        raise SystemExit(f"{name}: float32 is {error:.1e} away from float64")

    head = provenance(directory, ALL_FILES) | {
        "length_max": limit,
        "labels": [model.config.id2label[index] for index in range(model.config.num_labels)],
        "scores": scores,
        "pairs": [
            {"ids": tensors["input_ids"][0].tolist(), "type_ids": tensors["token_type_ids"][0].tolist(), "logits": rounded(answer)}
            for tensors, answer in zip(pairs, answers[len(inputs) :])
        ],
        "lengths": [tensors["input_ids"].shape[1] for tensors in inputs],
    }
    write(HERE / f"{name}.logits.json", head, "logits", map(rounded, answers[: len(inputs)]))


def pipeline_scores(model, tokenizer, limit, texts):
    """Scores by label as `pipeline("text-classification")` gives them, with the activation it chooses itself."""
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    scores = []
    for index in texts["pipeline"]:
        answer = classify(expand(texts["classification"][index]), top_k=None, truncation=True, max_length=limit)
        by_label = {entry["label"]: entry["score"] for entry in answer}
        ordered = [by_label[model.config.id2label[label]] for label in range(model.config.num_labels)]
        scores.append({"text": index, "scores": rounded(ordered)})
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {RANDOM} and {EMBEDDED}; all of them when none is given")
    parser.add_argument("--texts", action="store_true", help="make texts.json anew; every golden file must then be made anew, too")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    warnings.filterwarnings("ignore")
    texts_path = HERE / "texts.json"
    if arguments.texts:
        made = made_texts.make()
        head = {key: value for key, value in made.items() if key != "tokenization"}
        write(texts_path, head, "tokenization", made["tokenization"])
    texts = json.loads(texts_path.read_text(encoding="ascii"))
    names = arguments.names or RANDOM + ([EMBEDDED] if (ROOT / "models" / EMBEDDED).exists() else [])
    for name in names:
        directory = checkpoint(name)
        tokenization(name, directory, [expand(text) for text in texts["tokenization"]])
        logits(name, directory, texts)


if __name__ == "__main__":
    main()
