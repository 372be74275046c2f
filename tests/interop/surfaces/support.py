"""What the checks share."""

import http.client
import json
import time
from dataclasses import dataclass

LIMIT_SECONDS = 60  # for anything that has to come in the end

# Texts that the embedded model knows well, and what they are.
JAZZ = "play some jazz"
TEXTS = {
    JAZZ: "PlayMusic",
    "book a table for two in boston": "BookRestaurant",
    "what is the weather like in paris": "GetWeather",
    "add this song to my workout playlist": "AddToPlaylist",
}


class Wrong(Exception):
    """Something is not as it should be; the message says how it should be."""


def check(is_so, what):
    if not is_so:
        raise Wrong(what)


def ok(what):
    print(f"ok {what}", flush=True)


def fails(call, kind, what):
    """The error of that kind that `call` ends with."""
    try:
        found = call()
    except kind as error:
        return error
    raise Wrong(f"{what}: expected {kind.__name__}, found {found!r}"[:400])


@dataclass
class Answer:
    """An answer over HTTP."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self):
        return json.loads(self.body)

    def __str__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:200]!r}"


def ask(port, method, path, body=None, headers=None):
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def post(port, path, value, **headers):
    """A request with JSON."""
    headers = {"Content-Type": "application/json"} | headers
    return ask(port, "POST", path, json.dumps(value), headers)


def expect(answer, status, what):
    check(answer.status == status, f"{what}: expected {status}, found {answer}")
    return answer


def refusal(answer, status, what):
    """An error as everybody gets it."""
    expect(answer, status, what)
    error = answer.json()
    check(set(error) == {"error", "error_type"}, f"{what}: error and error_type, not {error}")
    check(all(isinstance(word, str) and word for word in error.values()), f"{what}: words, not {error}")
    return error


def own_label(port, text):
    """What our own route says of a text."""
    from urllib.parse import urlencode

    path = f"/predict?{urlencode({'query': text})}"
    answer = ask(port, "GET", path, headers={"Accept": "application/json"})
    return expect(answer, 200, f"GET {path}").json()["label"]


def until_ready(port):
    deadline = time.monotonic() + LIMIT_SECONDS
    while ask(port, "GET", "/readyz").status != 200:
        check(time.monotonic() < deadline, "/readyz answers 200 in the end")
        time.sleep(0.05)
    for text, label in TEXTS.items():
        found = own_label(port, text)
        check(found == label, f"GET /predict says {label} of {text!r}, not {found}")
    ok("GET /predict knows the texts")
