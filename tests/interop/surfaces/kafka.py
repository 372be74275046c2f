"""Requests as Knative's KafkaSource sends them for records of a topic."""

import json

from support import JAZZ, ask, check, expect, ok, own_label, refusal

# As its dispatcher makes them of a record's place; there is no Content-Type unless the record names one.
HEADERS = {
    "ce-specversion": "1.0",
    "ce-type": "dev.knative.kafka.event",
    "ce-source": "/apis/v1/namespaces/shop/kafkasources/ai-info#ai-info",
    "ce-id": "partition:0/offset:7",
    "ce-subject": "partition:0#7",
    "ce-time": "2026-03-01T10:00:00.123Z",
    "Prefer": "reply",
    "Kn-Namespace": "shop",
}


def send(port, value, headers=None, path="/"):
    return ask(port, "POST", path, value, HEADERS | (headers or {}))


def answered(answer, what, label="PlayMusic"):
    found = expect(answer, 200, what).json()
    check(found["label"] == label, f"{what}: {label}, not {found}")
    check(answer.headers["ce-type"] == "dev.intentd.prediction", f"{what}: a reply, not {answer}")
    check(answer.headers["content-type"] == "application/json", f"{what}: JSON, not {answer}")
    return answer.headers


def records(port):
    headers = answered(send(port, JAZZ), "a record")
    check(headers["ce-causationid"] == HEADERS["ce-id"], f"the record's id, not {headers['ce-causationid']}")
    check("ce-partitionkey" not in headers, "no key where the record has none")
    check("x-intentd-truncated" not in headers, "nothing is cut off")
    again = answered(send(port, JAZZ), "a record that is delivered again")
    check(again["ce-id"] == headers["ce-id"], "a record that is delivered again has the same reply")
    next_ = answered(send(port, JAZZ, {"ce-id": "partition:0/offset:8"}), "the next record")
    check(next_["ce-id"] != headers["ce-id"], "the next record has another")
    answered(send(port, JAZZ, path="/predict"), "a record on /predict")
    ok("KafkaSource: a record")

    key = {"ce-key": "user-1", "ce-partitionkey": "user-1", "ce-kafkaheaderfoo": "bar"}
    headers = answered(send(port, JAZZ, key), "a record with a key and a header")
    check(headers["ce-partitionkey"] == "user-1", f"the key is carried on, not {headers['ce-partitionkey']!r}")
    check("ce-kafkaheaderfoo" not in headers, "a header is not: it is about the record")
    ok("KafkaSource: a record with a key")

    of_json = {"Content-Type": "application/json"}
    answered(send(port, json.dumps({"query": JAZZ, "user": 7}), of_json), "a record of JSON")
    answered(send(port, json.dumps({"query": JAZZ, "user": 7})), "a record of JSON that nobody names so")
    inner = {"specversion": "1.0", "id": "inner", "source": "/app", "type": "app.said", "data": JAZZ}
    structured = {"Content-Type": "application/cloudevents+json; charset=UTF-8"}
    headers = answered(send(port, json.dumps(inner), structured), "a record that is an event")
    check(headers["ce-causationid"] == "inner", f"the event's own id, not {headers['ce-causationid']!r}")
    ok("KafkaSource: records of JSON and of events")


def bad_records(port):
    for what, status, value, headers in [
        ("a record without a value", 400, b"", {}),
        ("a record of bytes", 400, b"\xff\xfe\x00", {}),
        ("a record of 3 MB", 413, b"play " * 600_000, {}),
        ("a record of a picture", 415, b"\x89PNG", {"Content-Type": "image/png"}),
        ("a record without a text", 422, b"{}", {"Content-Type": "application/json"}),
        ("a record of half an object", 400, b'{"query":', {"Content-Type": "application/json"}),
    ]:
        answer = send(port, value, headers)
        error = refusal(answer, status, what)
        # Becomes an extension of the event in the dead-letter sink.
        check(answer.headers["kne-reason"] == error["error_type"], f"{what}: kne-reason, not {answer}")
        check("ce-id" not in answer.headers, f"{what}: an error is no event, not {answer}")
    ok("KafkaSource: records that are refused, with a reason")


def long_record(port):
    text = (JAZZ + " ") * 70_000
    check(len(text) > 1_000_000, "more than 1 MB")
    label = own_label(port, text[:2000])
    headers = answered(send(port, text), "a record of 1 MB", label)
    check(headers["x-intentd-truncated"] == "true", f"it says that the text was cut, not {dict(headers)}")
    ok("KafkaSource: a record of 1 MB is cut")


def encoded(port):
    """Ids and keys that need percent-encoding in a header come back as they came."""
    for value in ["partition:0/offset%208", "a%25b", "%22quoted%22", "Stra%C3%9Fe%20%F0%9F%98%80", "plain/7#x"]:
        headers = answered(send(port, JAZZ, {"ce-id": value, "ce-partitionkey": value}), value)
        for name in ["ce-causationid", "ce-partitionkey"]:
            check(headers[name] == value, f"{name} is {value}, not {headers[name]}")
    ok("KafkaSource: percent-encoded ids and keys")


def run(port):
    records(port)
    bad_records(port)
    long_record(port)
    encoded(port)
