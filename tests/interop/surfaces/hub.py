"""Hugging Face's client, and requests as the documentation of text-embeddings-inference has them."""

import asyncio

from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from support import JAZZ, TEXTS, ask, check, expect, fails, ok, post, refusal

INTEGERS = ["x-compute-time", "x-compute-characters", "x-compute-tokens", "x-total-time", "x-tokenization-time",
            "x-queue-time", "x-inference-time"]


def best_first(scores):
    return all(a >= b for a, b in zip(scores, scores[1:]))


def hub(port, takes_pairs):
    for path in ["/predict", "/", "/invocations"]:
        client = InferenceClient(model=f"http://127.0.0.1:{port}{path}")
        for text, label in TEXTS.items():
            found = client.text_classification(text, top_k=3)
            check(len(found) == 3 and found[0].label == label, f"{path}: three labels, {label} first, not {found}")
            check(best_first([one.score for one in found]), f"{path}: the best first, not {found}")
    ok("huggingface_hub: text_classification of three labels, on three paths")

    everything = client.text_classification(JAZZ)
    check(abs(sum(one.score for one in everything) - 1) < 1e-5, f"scores of all labels add up to 1: {everything}")
    softmax = client.text_classification(JAZZ, function_to_apply="softmax")
    check(softmax == everything, f"this model's scores are its softmax, not {everything}")
    sigmoid = client.text_classification(JAZZ, function_to_apply="sigmoid")
    check(sum(one.score for one in sigmoid) > 1.01, f"a sigmoid a label, not {sigmoid}")
    logits = client.text_classification(JAZZ, function_to_apply="none")
    check(logits[0].score > 1 and logits[-1].score < 0, f"logits, not {logits}")
    labels = [[one.label for one in found] for found in (everything, sigmoid, logits)]
    check(labels[0] == labels[1] == labels[2], f"the order is the same for all functions, not {labels}")
    ok("huggingface_hub: all labels, and each function_to_apply")

    if takes_pairs:
        pair = client.text_classification({"text": JAZZ, "text_pair": "weather"}, function_to_apply="none")
        wanted = post(port, "/predict", {"inputs": [JAZZ, "weather"], "raw_scores": True}).json()
        found = [{"score": one.score, "label": one.label} for one in pair]
        check(found == wanted, f"a pair is {wanted}, not {found}")
        ok("huggingface_hub: a pair")

    error = fails(lambda: client.text_classification(JAZZ, top_k=0), HfHubHTTPError, "top_k=0")
    check(error.response.status_code == 422 and "top_k" in str(error), f"422 that says why, not {error}")
    error = fails(lambda: client.text_classification(JAZZ, function_to_apply="cosine"), HfHubHTTPError, "a cosine")
    check(error.response.status_code == 422, f"422, not {error}")

    async def together():
        client = AsyncInferenceClient(model=f"http://127.0.0.1:{port}/predict")
        asked = [client.text_classification(text, top_k=1) for text in TEXTS]
        return [found[0].label for found in await asyncio.gather(*asked)]

    found = asyncio.run(together())
    check(found == list(TEXTS.values()), f"asyncio gets {list(TEXTS.values())}, not {found}")
    ok("huggingface_hub: mistakes, asyncio")


def scores(answer, what):
    found = expect(answer, 200, what).json()
    rows = found if isinstance(found[0], list) else [found]
    for row in rows:
        check(all(set(one) == {"label", "score"} for one in row), f"{what}: labels and scores, not {row}")
        check(best_first([one["score"] for one in row]), f"{what}: the best first, not {row}")
    return found


def headers(answer, text, tokens):
    check(answer.headers["x-compute-type"] in ["cpu", "gpu"], f"x-compute-type, not {answer}")
    for name in INTEGERS:
        value = answer.headers[name]
        check(value is not None and value.isdigit(), f"{name} is a whole number, not {value!r}")
    check(int(answer.headers["x-compute-characters"]) == len(text), f"{len(text)} characters, not {answer}")
    check(int(answer.headers["x-compute-tokens"]) == tokens, f"{tokens} tokens, not {answer}")


def tei(port, takes_pairs):
    one = "I like you. ☺"
    answer = post(port, "/predict", {"inputs": one})
    found = scores(answer, "one text")
    check(isinstance(found[0], dict), f"a text has a list of labels, not {found}")
    tokens = expect(post(port, "/tokenize", {"inputs": one}), 200, "/tokenize").json()
    headers(answer, one, len(tokens[0]))
    raw = scores(post(port, "/predict", {"inputs": one, "raw_scores": True}), "raw scores")
    check(raw[0]["label"] == found[0]["label"], f"the same label by raw scores, not {raw}")
    check(raw[0]["score"] > 1 and raw[-1]["score"] < 0, f"logits, not {raw}")

    batch = scores(post(port, "/predict", {"inputs": [["I like you. ☺"], ["I hate pineapples"]]}), "a batch")
    check(len(batch) == 2 and batch[0] == found, f"a list of labels for each of two texts, not {batch}")
    pair = post(port, "/predict", {"inputs": ["I like you.", "I hate pineapples"], "raw_scores": True})
    if takes_pairs:
        check(isinstance(scores(pair, "a pair")[0], dict), f"a pair is one text, not {pair}")
        mixed = {"inputs": [["I like you.", "I hate pineapples"], ["I like you. ☺"]]}
        mixed = scores(post(port, "/predict", mixed), "a pair and a text")
        check(mixed[1] == found, f"a batch may mix pairs and texts, not {mixed}")
    else:
        refusal(pair, 422, "a pair")
    ok("text-embeddings-inference: a text, a pair, a batch, raw_scores, x-compute headers")

    limit = ask(port, "GET", "/info").json()["max_input_length"]
    long = {"inputs": "play " * 2 * limit}
    check(int(post(port, "/predict", long).headers["x-compute-tokens"]) == limit, "a text too long is cut")
    refusal(post(port, "/predict", long | {"truncate": False}), 422, "a text too long that is not to be cut")
    refusal(post(port, "/predict", {"inputs": []}), 400, "no text")
    refusal(post(port, "/predict", {"inputs": 7}), 422, "a number")
    refusal(post(port, "/predict", {"inputs": [["a", "b", "c"]]}), 422, "three in a pair")
    refusal(ask(port, "POST", "/predict", "{", {"Content-Type": "application/json"}), 400, "half an object")
    refusal(ask(port, "POST", "/predict", "a", {"Content-Type": "image/png"}), 415, "a picture")
    refusal(post(port, "/embed", {"inputs": "a"}), 404, "a route for other models")
    refusal(ask(port, "DELETE", "/predict"), 405, "another method")
    ok("text-embeddings-inference: error and error_type")


def around(port):
    """TEI's other routes."""
    for path in ["/health", "/ping"]:
        expect(ask(port, "GET", path), 200, path)
    info = expect(ask(port, "GET", "/info"), 200, "/info").json()
    kinds = {"model_id": str, "model_dtype": str, "model_type": dict, "max_concurrent_requests": int,
             "max_input_length": int, "max_batch_tokens": int, "max_client_batch_size": int,
             "tokenization_workers": int, "auto_truncate": bool, "version": str}
    for name, kind in kinds.items():
        check(type(info.get(name)) is kind, f"/info: {name} is {kind.__name__}, not {info.get(name)!r}")
    for name in ["model_sha", "max_batch_requests", "sha", "docker_label"]:
        check(name in info, f"/info has {name}: {info}")
    classes = info["model_type"]["classifier"]
    turned = {label: int(row) for row, label in classes["id2label"].items()}
    check(turned == classes["label2id"] and "PlayMusic" in turned, f"rows by label and labels by row: {classes}")

    text = "What is Deep Learning?"
    (tokens,) = expect(post(port, "/tokenize", {"inputs": text}), 200, "/tokenize").json()
    check(all(set(token) == {"id", "text", "special", "start", "stop"} for token in tokens), f"tokens: {tokens}")
    check(tokens[0]["special"] and tokens[-1]["special"], f"special tokens at both ends: {tokens}")
    plain = [token for token in tokens if not token["special"]]
    check(all(text[token["start"]:token["stop"]] == token["text"] for token in plain), f"places: {tokens}")
    bare = post(port, "/tokenize", {"inputs": [text, "a"], "add_special_tokens": False}).json()
    check(bare[0] == plain and len(bare) == 2, f"tokens without special ones, a list a text: {bare}")
    ok("text-embeddings-inference: /health, /ping, /info, /tokenize")


def run(port, takes_pairs):
    hub(port, takes_pairs)
    tei(port, takes_pairs)
    around(port)
