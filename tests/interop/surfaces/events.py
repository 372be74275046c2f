"""The SDK of CloudEvents: events that are sent, and the events that answer them."""

import json
from datetime import datetime, timedelta, timezone

from cloudevents.core.bindings.http import HTTPMessage, from_http, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import conversion as older
from cloudevents.v1.http import CloudEvent as OlderEvent
from cloudevents.v1.http import from_http as older_from_http

from support import JAZZ, TEXTS, ask, check, expect, ok, refusal

FORMAT = JSONFormat()
TYPE = "dev.intentd.prediction"
PATHS = ["/", "/predict"]
MODES = [to_binary, to_structured]
REPLY = {"Prefer": "reply"}


def event(id_, data=JAZZ, content_type="text/plain", **more):
    attributes = {"id": id_, "source": "/shop/chat", "type": "shop.said", "time": datetime.now(timezone.utc)}
    if content_type is not None:
        attributes["datacontenttype"] = content_type
    return CloudEvent(attributes | more, data)


def send(port, path, message, headers=None):
    return ask(port, "POST", path, message.body, dict(message.headers) | (headers or {}))


def reply(answer, cause):
    """The event in an answer, as the SDK reads it."""
    expect(answer, 200, "an event that wants a reply")
    found = from_http(HTTPMessage(dict(answer.headers), answer.body), FORMAT)
    sent, got = cause.get_attributes(), found.get_attributes()
    for name, value in {
        "specversion": "1.0",
        "type": TYPE,
        "source": "/intentd",
        "datacontenttype": "application/json",
        "causationid": sent["id"],
        "partitionkey": sent.get("partitionkey"),
        "correlationid": sent.get("correlationid"),
    }.items():
        check(got.get(name) == value, f"the reply's {name} is {value!r}, not {got.get(name)!r}")
    check(got["id"] and got["id"] != sent["id"], f"the reply has an id of its own, not {got['id']!r}")
    age = datetime.now(timezone.utc) - got["time"]
    check(abs(age) < timedelta(minutes=1), f"the reply is of now, not of {got['time']}")
    return got["id"], found.get_data()


def replies(port):
    """Every way to put data into an event."""
    datas = [(JAZZ, "text/plain"), (JAZZ, "text/plain; charset=utf-8"), ({"query": JAZZ}, "application/json"),
             ({"text": JAZZ}, "application/vnd.shop+json"), (JAZZ.encode(), "application/octet-stream"),
             ({"inputs": JAZZ}, None)]
    ids = {}
    for path in PATHS:
        for mode in MODES:
            for data, content_type in datas:
                # What has to be percent-encoded in a header, and what looks like it.
                cause = event("n 1/é%20\"😀", data, content_type, partitionkey="Käse 7", correlationid="flow%1")
                answer = send(port, path, mode(cause, FORMAT), REPLY)
                id_, found = reply(answer, cause)
                check(found["label"] == "PlayMusic", f"{mode.__name__} {content_type}: PlayMusic, not {found}")
                ids.setdefault(id_, []).append((path, mode.__name__, content_type))
                check(answer.headers["ce-causationid"] == to_binary(cause, FORMAT).headers["ce-id"],
                      f"the SDK's own encoding of the id, not {answer.headers['ce-causationid']!r}")
    check(len(ids) == 1, f"one event has one reply's id, however it is sent: {ids}")
    others = {reply(send(port, "/", to_binary(event(f"n {number}"), FORMAT), REPLY), event(f"n {number}"))[0]
              for number in range(3)}
    check(len(others | set(ids)) == 4, f"other events have replies of other ids: {others}")
    ok("cloudevents: binary and structured, replies that name their cause")


def plain(port):
    for path in PATHS:
        for mode in MODES:
            for text, label in TEXTS.items():
                answer = expect(send(port, path, mode(event("1", text), FORMAT)), 200, "an event")
                check(answer.json()["label"] == label, f"{label}, not {answer}")
                events = [name for name in answer.headers if name.lower().startswith("ce-")]
                check(not events, f"no event where none is asked for: {events}")
    ok("cloudevents: answers without Prefer")


def batch(port):
    texts = list(TEXTS.items())
    events = [FORMAT.write(event(f"{number}", text)) for number, (text, _) in enumerate(texts)]
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    empty = FORMAT.write(event("empty", None))
    bodies = {"good ones": events, "one without data": [*events[:2], empty, *events[2:]]}
    for path in PATHS:
        for more in [{}, REPLY]:
            for what, body in bodies.items():
                body = b"[" + b",".join(body) + b"]"
                answers = expect(ask(port, "POST", path, body, headers | more), 200, f"a batch of {what}").json()
                good = [answer for answer in answers if answer["status"] == 200]
                found = [(answer["id"], answer["source"], answer["prediction"]["label"]) for answer in good]
                wanted = [(f"{number}", "/shop/chat", label) for number, (_, label) in enumerate(texts)]
                check(found == wanted, f"a batch of {what}: {wanted}, not {found}")
                bad = [answer for answer in answers if answer["status"] != 200]
                check([one["status"] for one in bad] == [400] * (len(bodies[what]) - len(texts)), f"{what}: {bad}")
                check(all(one["error"] and one["error_type"] for one in bad), f"{what}: {bad}")
        expect(ask(port, "POST", path, b"[]", headers), 200, "a batch of none")
        refusal(ask(port, "POST", path, b"[" + empty + b"]", headers), 400, "a batch of nothing good")
    ok("cloudevents: batches")


def mistakes(port):
    good = to_binary(event("1"), FORMAT)
    for name in ["ce-id", "ce-source", "ce-type"]:
        headers = {key: value for key, value in good.headers.items() if key != name}
        for path in PATHS:
            answer = ask(port, "POST", path, good.body, headers)
            refusal(answer, 400, f"an event without {name}")
            check(answer.headers["kne-reason"], f"a reason for the dead-letter sink, not {answer}")
    refusal(send(port, "/", good, {"ce-specversion": "0.3"}), 400, "an event of 0.3")
    avro = {"Content-Type": "application/cloudevents+avro"}
    refusal(ask(port, "POST", "/", b"\x00", avro), 415, "an event in Avro")
    # What is compressed cannot be read; as /predict says of any other body.
    refusal(send(port, "/", good, {"Content-Encoding": "gzip"}), 415, "an event that is compressed")
    ok("cloudevents: mistakes")


def older_interface(port):
    """What the SDK was before its version 2, as many have it."""
    cause = OlderEvent({"source": "/shop", "type": "shop.said", "id": "o-1", "partitionkey": "7"}, {"query": JAZZ})
    for mode in [older.to_binary, older.to_structured]:
        headers, body = mode(cause)
        answer = expect(ask(port, "POST", "/", body, dict(headers) | REPLY), 200, "an event of the older SDK")
        found = older_from_http(dict(answer.headers), answer.body)
        check(found["type"] == TYPE and found["causationid"] == "o-1" and found["partitionkey"] == "7", f"{found}")
        check(found.data["label"] == "PlayMusic", f"PlayMusic, not {json.dumps(found.data)}")
    ok("cloudevents: the SDK's older interface")


def run(port):
    replies(port)
    plain(port)
    batch(port)
    mistakes(port)
    older_interface(port)
