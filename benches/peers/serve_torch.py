"""torch behind LitServe, with its dynamic batching.

    target/peers/venv/bin/python benches/peers/serve_torch.py --model CHECKPOINT_DIR

Answers `POST /predict` `{"query": "music"}` with `{"label", "score"}`. The model runs in a process
of its own, `--workers` of them, on batches of up to `--max-batch` texts, of which the first waits
`--batch-wait-ms` for others.
"""

import argparse
from pathlib import Path

import litserve
import torch
from transformers import AutoModelForSequenceClassification

from common import available_cores, feed, labels_of, tokenizer_of


class Classifier(litserve.LitAPI):
    """LitServe calls `setup` once in each worker and the rest for each batch."""

    def __init__(self, flags, **batching):
        super().__init__(**batching)
        self.flags = flags

    def setup(self, device):
        torch.set_num_threads(self.flags.threads)
        self.tokenizer = tokenizer_of(self.flags.model)
        self.labels = labels_of(self.flags.model)
        self.model = AutoModelForSequenceClassification.from_pretrained(self.flags.model, dtype=torch.float32).eval().to(device)

    def decode_request(self, request):
        return request["query"]

    @torch.inference_mode()
    def predict(self, texts):
        # A text when batching is off.
        texts = [texts] if isinstance(texts, str) else texts
        tensors = {name: torch.from_numpy(column) for name, column in feed(self.tokenizer, texts).items()}
        scores, best = self.model(**tensors).logits.softmax(-1).max(-1)
        answers = [{"label": self.labels[index], "score": score} for index, score in zip(best.tolist(), scores.tolist())]
        return answers if self.max_batch_size > 1 else answers[0]

    def unbatch(self, answers):
        return answers

    def encode_response(self, answer):
        return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="directory of the checkpoint")
    parser.add_argument("--port", type=int, default=8103)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--batch-wait-ms", type=float, default=2.0)
    flags = parser.parse_args()
    api = Classifier(flags, max_batch_size=flags.max_batch, batch_timeout=flags.batch_wait_ms / 1e3)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=flags.workers)
    server.run(host="127.0.0.1", port=flags.port, generate_client_file=False, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
