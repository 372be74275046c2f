"""ONNX Runtime behind FastAPI and uvicorn: what many build themselves, with what makes it fast.

    target/peers/venv/bin/python benches/peers/serve_ort.py --onnx EXPORT_DIR/fp32.onnx --tokenizer CHECKPOINT_DIR

Answers `GET /predict?query=music` with `{"label", "score"}`. Without a batcher every text is a run
of its own, `--concurrency` of them at once in threads (a run does not hold Python's lock). With
`--max-batch` what waits goes together, up to that many, after `--batch-wait-ms` at most. `--workers`
starts several processes, each with its own model, on the one port.
"""

import argparse
import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy
import uvicorn
from fastapi import FastAPI

from common import HERE, available_cores, feed, labels_of, session, tokenizer_of


class Model:
    """Texts to labels and scores, in the thread that calls it."""

    def __init__(self, flags):
        self.tokenizer = tokenizer_of(flags.tokenizer)
        self.labels = labels_of(flags.tokenizer)
        self.session = session(flags.onnx, flags.threads, not flags.no_spinning)

    def classify(self, texts):
        logits = self.session.run(None, feed(self.tokenizer, texts))[0]
        powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
        best = scores.argmax(axis=1)
        return [{"label": self.labels[index], "score": float(row[index])} for row, index in zip(scores, best)]


class OneByOne:
    """Each text by itself, in a pool of threads."""

    def __init__(self, model, flags):
        self.model = model
        self.pool = ThreadPoolExecutor(flags.concurrency)

    async def classify(self, text):
        loop = asyncio.get_running_loop()
        return (await loop.run_in_executor(self.pool, self.model.classify, [text]))[0]

    async def run(self):
        """There is nothing to do in the background."""


class Batcher:
    """What waits goes together: as soon as the model is free, or when the first has waited long enough."""

    def __init__(self, model, flags):
        self.model = model
        self.wait = flags.batch_wait_ms / 1e3
        self.most = flags.max_batch
        self.waiting = asyncio.Queue()
        self.pool = ThreadPoolExecutor(1)

    async def classify(self, text):
        answer = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((text, answer))
        return await answer

    async def next_batch(self):
        batch = [await self.waiting.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self.wait or None):
                while len(batch) < self.most:
                    if not self.wait and self.waiting.empty():
                        break
                    batch.append(await self.waiting.get())
        return batch

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            batch = await self.next_batch()
            try:
                answers = await loop.run_in_executor(self.pool, self.model.classify, [text for text, _ in batch])
            except Exception as error:
                answers = [error] * len(batch)
            for (_, waiter), answer in zip(batch, answers):
                if waiter.done():
                    continue  # The client has left.
                if isinstance(answer, Exception):
                    waiter.set_exception(answer)
                else:
                    waiter.set_result(answer)


def create():
    """The application; each of uvicorn's processes makes its own, from the same command line."""
    flags = parse()
    model = Model(flags)

    @asynccontextmanager
    async def lifespan(app):
        app.state.classifier = (Batcher if flags.max_batch else OneByOne)(model, flags)
        background = asyncio.create_task(app.state.classifier.run())
        yield
        background.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.get("/predict")
    async def predict(query: str):
        return await app.state.classifier.classify(query)

    return app


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", required=True, type=Path)
    parser.add_argument("--tokenizer", required=True, type=Path, metavar="DIR", help="directory of the checkpoint")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8101)
    parser.add_argument("--threads", type=int, default=available_cores(), help="of one run [default: all cores]")
    parser.add_argument("--concurrency", type=int, default=1, help="runs at once without a batcher")
    parser.add_argument("--no-spinning", action="store_true", help="threads that wait for work leave their cores to others")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--max-batch", type=int, help="texts in a batch; no batcher when not given")
    parser.add_argument("--batch-wait-ms", type=float, default=0.0, help="a text waits so long for others; 0 takes what is there")
    return parser.parse_args()


def main():
    flags = parse()
    sys.path.insert(0, str(HERE))
    uvicorn.run(
        "serve_ort:create",
        factory=True,
        host=flags.host,
        port=flags.port,
        workers=flags.workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
