"""Triton's clients, over HTTP and over gRPC."""

import asyncio
import queue

import numpy
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from support import JAZZ, TEXTS, ask, check, fails, ok, own_label, post

MODEL = "intentd"
OUTPUTS = ["label", "score", "scores", "logits"]
# More work than can be done in the milliseconds that some requests get for it: 128 texts of full length.
HEAVY = [" ".join(TEXTS) + " " + " ".join(TEXTS) * 8] * 128


class Client:
    """One of the two clients, which differ in what they are given and in what they give."""

    def __init__(self, name, module, port):
        self.name, self.module, self.port = name, module, port
        self.is_http = module is tritonclient.http
        self.client = module.InferenceServerClient(f"127.0.0.1:{port}")

    def fields(self, message):
        """Metadata as a dict; gRPC's is a message otherwise."""
        return message if self.is_http else self.as_json(message)

    def as_json(self, message):
        from google.protobuf import json_format

        found = json_format.MessageToDict(message, preserving_proto_field_name=True)
        # 64-bit numbers are strings in JSON made of protobuf.
        for tensor in found.get("inputs", []) + found.get("outputs", []):
            tensor["shape"] = [int(size) for size in tensor["shape"]]
        return found

    def input(self, texts, name="text", binary=True):
        tensor = self.module.InferInput(name, [len(texts)], "BYTES")
        how = {"binary_data": binary} if self.is_http else {}
        tensor.set_data_from_numpy(numpy.array(texts, dtype=numpy.object_), **how)
        return tensor

    def output(self, name, binary=True, classes=0):
        how = {"binary_data": binary} if self.is_http else {}
        return self.module.InferRequestedOutput(name, class_count=classes, **how)

    def infer(self, inputs, model=MODEL, **more):
        return self.client.infer(model, inputs, **more)

    def label(self, texts, **more):
        return words(self.infer([self.input(texts)], **more).as_numpy("label"))

    def fails(self, code, what, call):
        """The message of an error; `code` is HTTP's and gRPC's."""
        error = fails(call, InferenceServerException, f"{self.name}: {what}")
        status, wanted = str(error.status()), str(code[0]) if self.is_http else f"StatusCode.{code[1]}"
        check(status == wanted, f"{self.name}: {what}: expected {wanted}, found {error}")
        return error.message()

    def ok(self, what):
        ok(f"tritonclient.{self.name}: {what}")


def words(tensor):
    """Strings of a tensor: bytes where it came as binary data."""
    return [word.decode() if isinstance(word, bytes) else word for word in tensor.reshape(-1)]


def metadata(it, classes):
    client = it.client
    check(client.is_server_live() is True, f"{it.name}: the server is live")
    check(client.is_server_ready() is True, f"{it.name}: the server is ready")
    for version in ["", "1"]:
        check(client.is_model_ready(MODEL, version) is True, f"{it.name}: the model is ready")
    server = it.fields(client.get_server_metadata())
    check(server["name"] == MODEL and server["version"], f"{it.name}: name and version, not {server}")
    check(set(server["extensions"]) == {"binary_tensor_data", "classification"},
          f"{it.name}: the extensions that are tested here, not {server}")
    model = it.fields(client.get_model_metadata(MODEL))
    check((model["name"], model["versions"]) == (MODEL, ["1"]), f"{it.name}: {MODEL} 1, not {model}")
    tensors = {(t["name"], t["datatype"], *t["shape"]) for t in model["inputs"] + model["outputs"]}
    wanted = {("text", "BYTES", -1), ("label", "BYTES", -1), ("score", "FP32", -1),
              ("scores", "FP32", -1, len(classes)), ("logits", "FP32", -1, len(classes))}
    check(tensors == wanted, f"{it.name}: {wanted}, not {tensors}")
    it.ok("server and model are ready, and say what they are")


def numbers(it, result, texts, classes):
    """All outputs of a result belong together."""
    label, score, scores, logits = (result.as_numpy(name) for name in OUTPUTS)
    rows = (len(texts),)
    check(label.shape == score.shape == rows, f"{it.name}: a label and a score a text")
    check(scores.shape == logits.shape == (*rows, len(classes)), f"{it.name}: a row of classes a text")
    check(score.dtype == scores.dtype == logits.dtype == numpy.float32, f"{it.name}: 32-bit numbers")
    check(numpy.allclose(scores.sum(1), 1, atol=1e-5), f"{it.name}: scores add up to 1, not {scores.sum(1)}")
    check((scores.max(1) == score).all(), f"{it.name}: the score is the best of the scores")
    power = numpy.exp(logits - logits.max(1, keepdims=True))
    check(numpy.allclose(power / power.sum(1, keepdims=True), scores, atol=1e-5),
          f"{it.name}: scores are the softmax of the logits")
    named = [classes[row] for row in scores.argmax(1)]
    check(words(label) == named == [TEXTS[text] for text in texts], f"{it.name}: {named}, not {words(label)}")


def infer(it, classes):
    texts = list(TEXTS)
    for binary_in in [True, False]:
        for binary_out in [True, False]:
            outputs = [it.output(name, binary_out) for name in OUTPUTS]
            inputs = [it.input(texts, binary=binary_in)]
            result = it.infer(inputs, outputs=outputs, request_id="request 7/ü")
            numbers(it, result, texts, classes)
            answer = result.get_response(as_json=True) if not it.is_http else result.get_response()
            check(answer["id"] == "request 7/ü", f"{it.name}: the request's id comes back, not {answer['id']!r}")
    # Nothing said: all outputs.
    numbers(it, it.infer([it.input(texts)]), texts, classes)
    it.ok("tensors in binary form and as JSON, ids" if it.is_http else "tensors in binary form, ids")

    result = it.infer([it.input(texts)], outputs=[it.output("label"), it.output("scores", False)])
    found = {name for name in OUTPUTS if result.as_numpy(name) is not None}
    check(found == {"label", "scores"}, f"{it.name}: only the outputs that are asked for, not {found}")
    it.ok("requested outputs")

    many = texts * 8
    check(it.label(many) == [TEXTS[text] for text in many], f"{it.name}: the labels of {len(many)} texts in order")
    check(it.label([JAZZ], model_version="1") == ["PlayMusic"], f"{it.name}: version 1 is the model")
    check(it.label(["spiel was, äöü 😀"]) == [own_label(it.port, "spiel was, äöü 😀")],
          f"{it.name}: a text that is not ASCII has the label of GET /predict")
    it.ok(f"a batch of {len(many)}, versions, UTF-8")


def classification(it, classes):
    for name in ["scores", "logits"]:
        for binary in [True, False]:
            result = it.infer([it.input([JAZZ, JAZZ])], outputs=[it.output(name, binary, classes=2)])
            tensor = result.as_numpy(name)
            check(tensor.shape == (2, 2), f"{it.name}: two classes a text, not {tensor.shape}")
            best = [word.split(":") for word in words(tensor)[:2]]
            check(all(classes[int(row)] == label for _, row, label in best), f"{it.name}: row and label, not {best}")
            check(best[0][2] == "PlayMusic" and float(best[0][0]) > float(best[1][0]),
                  f"{it.name}: the best comes first, not {best}")
    everything = it.infer([it.input([JAZZ])], outputs=[it.output("scores", classes=1000)]).as_numpy("scores")
    check(everything.shape == (1, len(classes)), f"{it.name}: no more classes than there are, not {everything.shape}")
    it.fails((422, "INVALID_ARGUMENT"), "classification of a label",
             lambda: it.infer([it.input([JAZZ])], outputs=[it.output("label", classes=2)]))
    it.ok("classification")


def pairs(it, takes_pairs):
    first, second = [JAZZ, "now"], ["by the radio", "what is the weather like in paris"]
    inputs = [it.input(first), it.input(second, "text_pair")]
    if takes_pairs:
        answer = post(it.port, "/predict", {"inputs": [list(pair) for pair in zip(first, second)]})
        wanted = [scores[0]["label"] for scores in answer.json()]
        found = words(it.infer(inputs).as_numpy("label"))
        check(found == wanted, f"{it.name}: pairs are {wanted}, as /predict says, not {found}")
        it.fails((422, "INVALID_ARGUMENT"), "half a pair",
                 lambda: it.infer([it.input(first), it.input(second[:1], "text_pair")]))
    else:
        it.fails((422, "INVALID_ARGUMENT"), "pairs", lambda: it.infer(inputs))
    it.ok(f"pairs, which the model {'takes' if takes_pairs else 'does not take'}")


def mistakes(it):
    jazz = [it.input([JAZZ])]
    for what, call in {
        "an unknown model": lambda: it.infer(jazz, model="nobody"),
        "an unknown version": lambda: it.infer(jazz, model_version="2"),
        "metadata of an unknown model": lambda: it.client.get_model_metadata("nobody"),
    }.items():
        message = it.fails((404, "NOT_FOUND"), what, call)
        check(MODEL in message, f"{it.name}: {what}: the message names the model that there is: {message}")
    invalid = (422, "INVALID_ARGUMENT")
    it.fails(invalid, "an unknown output", lambda: it.infer(jazz, outputs=[it.output("embedding")]))
    it.fails(invalid, "a text too long that is not to be cut",
             lambda: it.infer([it.input(HEAVY[:1])], parameters={"truncate": False}))
    it.fails(invalid, "more texts than one request may have", lambda: it.infer([it.input([JAZZ] * 1000)]))
    it.fails((400, "INVALID_ARGUMENT"), "no text at all", lambda: it.infer([it.input([])]))
    it.fails((400, "INVALID_ARGUMENT"), "what is not UTF-8", lambda: it.infer([it.input([b"\xff"])]))
    tensor = it.module.InferInput("text", [1], "FP32")
    tensor.set_data_from_numpy(numpy.ones(1, numpy.float32))
    message = it.fails(invalid, "numbers", lambda: it.infer([tensor]))
    check("datatype" in message, f"{it.name}: the message is about the datatype, not {message}")
    it.ok("mistakes, by their codes")


def compression(it):
    """Answers come as they are, and requests have to."""
    # Long enough that it is worth it: gRPC sends a short message as it is, whatever it is told.
    jazz = [it.input([JAZZ * 20])]
    how = "request_compression_algorithm" if it.is_http else "compression_algorithm"
    it.fails((415, "UNIMPLEMENTED"), "a request that is compressed", lambda: it.infer(jazz, **{how: "gzip"}))
    if it.is_http:
        found = it.label([JAZZ], response_compression_algorithm="gzip")
        check(found == ["PlayMusic"], f"{it.name}: an answer where a compressed one is liked, not {found}")
    it.ok("compression")


def time_is_up(it):
    """By Triton's parameter, in microseconds, and by the client's own clock."""
    heavy = it.input(HEAVY)
    # What is forecast to take longer than it may is refused over HTTP as more than can be done (429), where it
    # is not too late already (504); gRPC has one word for both.
    for micros in [1] if it.is_http else [1, 2000]:
        it.fails((504, "DEADLINE_EXCEEDED"), f"{micros} µs for what takes longer",
                 lambda: it.infer([heavy], timeout=micros))
    check(it.label([JAZZ], timeout=60_000_000) == ["PlayMusic"], f"{it.name}: a minute is enough")
    if it.is_http:
        impatient = it.module.InferenceServerClient(f"127.0.0.1:{it.port}", network_timeout=0.002)
        fails(lambda: impatient.infer(MODEL, [heavy]), TimeoutError, "http: 2 ms for what takes longer")
    else:
        it.fails((0, "DEADLINE_EXCEEDED"), "2 ms for what takes longer",
                 lambda: it.infer([heavy], client_timeout=0.002))
    check(it.label([JAZZ]) == ["PlayMusic"], f"{it.name}: the next one is answered")
    it.ok("timeouts")


def other_ways(it):
    """Answers that come later, and asyncio."""
    if it.is_http:
        late = it.client.async_infer(MODEL, [it.input([JAZZ])]).get_result()
    else:
        came = queue.Queue()
        it.client.async_infer(MODEL, [it.input([JAZZ])], lambda result, error: came.put(error or result))
        late = came.get(timeout=60)
    check(words(late.as_numpy("label")) == ["PlayMusic"], f"{it.name}: async_infer, not {late}")

    async def ask_together():
        module = tritonclient.http.aio if it.is_http else tritonclient.grpc.aio
        async with module.InferenceServerClient(f"127.0.0.1:{it.port}") as client:
            asked = [client.infer(MODEL, [it.input([text])]) for text in TEXTS]
            return [words(result.as_numpy("label"))[0] for result in await asyncio.gather(*asked)]

    found = asyncio.run(ask_together())
    check(found == list(TEXTS.values()), f"{it.name}: asyncio gets {list(TEXTS.values())}, not {found}")
    it.ok("async_infer and asyncio")


def run(port, takes_pairs):
    names = ask(port, "GET", "/info").json()["model_type"]["classifier"]["id2label"]
    classes = [names[str(row)] for row in range(len(names))]
    for name, module in [("http", tritonclient.http), ("grpc", tritonclient.grpc)]:
        it = Client(name, module, port)
        metadata(it, classes)
        infer(it, classes)
        classification(it, classes)
        pairs(it, takes_pairs)
        mistakes(it)
        compression(it)
        other_ways(it)
        time_is_up(it)
        it.client.close()
