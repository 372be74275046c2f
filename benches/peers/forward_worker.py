"""One engine of Python's as a program that forward.py drives: benches/forward.rs, with the same protocol.

Prints a line of JSON that says what runs. For each line on standard input, `{"batches": [[0, 1]]}`
(numbers of texts), runs every batch once, in order, and answers
`{"seconds": [...], "labels": [[...]]}`. Batches are padded to their longest text, as the users of
these engines do; they are tokenized, padded and made tensors before the clock starts.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from common import feed, session, tokenizer_of


def onnx_engine(kind, flags):
    import onnxruntime

    path = flags.onnx / f"{kind.removeprefix('ort-')}.onnx"
    one = session(path, flags.threads)
    name = f"ONNX Runtime {onnxruntime.__version__}, {path.name}"
    return name, lambda batch: batch, lambda batch: one.run(None, batch)[0]


def torch_engine(kind, flags):
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(flags.threads)
    dtype = torch.bfloat16 if kind == "torch-bf16" else torch.float32
    model = AutoModelForSequenceClassification.from_pretrained(flags.model, dtype=dtype).eval()

    def prepare(batch):
        return {name: torch.from_numpy(column) for name, column in batch.items()}

    @torch.inference_mode()
    def run(batch):
        return model(**batch).logits.float().numpy()

    return f"torch {torch.__version__} eager, {dtype}", prepare, run


def serve(flags):
    make = torch_engine if flags.engine.startswith("torch") else onnx_engine
    name, prepare, run = make(flags.engine, flags)
    tokenizer = tokenizer_of(flags.model)
    texts = flags.texts.read_text(encoding="utf-8").splitlines()
    print(json.dumps({"engine": name, "threads": flags.threads}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)["batches"]
        batches = [prepare(feed(tokenizer, [texts[index] for index in batch])) for batch in asked]
        seconds, logits = [], []
        for batch in batches:
            start = time.perf_counter()
            answer = run(batch)
            seconds.append(time.perf_counter() - start)
            logits.append(answer)
        labels = [answer.argmax(1).tolist() for answer in logits]
        print(json.dumps({"seconds": seconds, "labels": labels}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True, choices=["ort-fp32", "ort-int8", "torch", "torch-bf16"])
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--texts", required=True, type=Path)
    parser.add_argument("--threads", required=True, type=int)
    serve(parser.parse_args())


if __name__ == "__main__":
    main()
