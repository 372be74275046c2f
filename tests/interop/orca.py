"""Reads the load reports of a server by three definitions of the message. Run by orca.sh.

What Envoy would throw away is a failure here: a form without its content, a name that is not of the
standard or comes twice, a number that is negative, not finite or not a number. At rest and under load.
"""

import base64
import http.client
import json
import math
import sys
import time

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport as Published

LIMIT_SECONDS = 60
ASK = "endpoint-load-metrics-format"
ANSWER = "endpoint-load-metrics"
SENT = ["application_utilization", "rps_fractional", "eps"]
# What a report may say in text, beside named_metrics.*; older proxies know no others.
TEXT_NAMES = SENT + ["cpu_utilization", "mem_utilization"]

class Wrong(Exception):
    """A report that would be thrown away, or is not the same in all forms."""


def check(is_so, what):
    if not is_so:
        raise Wrong(what)


def defined(path, name):
    """The class of a message, from a compiled .proto, in a pool of its own."""
    with open(path, "rb") as file:
        files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def shape(message):
    """Name, number and type of each field; of maps, the types of key and value."""
    def kind(field):
        if field.message_type is None:
            return field.type
        return [kind(field.message_type.fields_by_name[part]) for part in ("key", "value")]
    return {f.name: (f.number, kind(f), f.is_repeated) for f in message.DESCRIPTOR.fields}


def values(message):
    """The fields that are set; a report of ours has no map in it."""
    return {field.name: value for field, value in message.ListFields()}


def nonzero(report):
    return {name: value for name, value in report.items() if value != 0}


class Asking:
    """One connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def header(self, form):
        """The report of an answer, or None. Blanks at the ends of a value are no part of it."""
        headers = {} if form is None else {ASK: form}
        self.connection.request("GET", "/predict?query=music", headers=headers)
        answer = self.connection.getresponse()
        answer.read()
        if answer.status == 503:
            return None
        check(answer.status == 200, f"status {answer.status}")
        found = answer.headers.get_all(ANSWER) or []
        check(len(found) == 1, f"one report, not {found}")
        return found[0].strip(" \t")


def content(header, prefix):
    check(header.startswith(prefix), f"{prefix!r} and a content, not {header!r}")
    return header[len(prefix):]


def read_binary(header, classes):
    """Values by each definition; all have to agree, and to know every field."""
    data = base64.b64decode(content(header, "BIN "), validate=True)
    read = {}
    for name, message in classes.items():
        report = message.FromString(data)
        known = message.FromString(data)
        known.DiscardUnknownFields()
        check(known == report, f"{name}: unknown fields in {data.hex()}")
        read[name] = values(report)
    first = read["published"]
    check(all(found == first for found in read.values()), f"definitions differ: {read}")
    return first


def number(text):
    value = float(text)
    # Python reads more than others: `1_0`, `infinity`.
    check("_" not in text and math.isfinite(value) and value >= 0, f"a number, not {text!r}")
    check(math.copysign(1, value) > 0, f"{text!r} is negative")
    return value


def read_text(header):
    report = {}
    for part in content(header, "TEXT ").split(","):
        name, _, value = part.partition("=")
        check(name in TEXT_NAMES, f"{name!r} is not of the standard")
        check(name not in report, f"{name!r} comes twice")
        report[name] = number(value)
    return report


def read_json(header):
    text = content(header, "JSON ")
    # Refuses names that it does not know, names that come twice, NaN and infinity where not asked for.
    message = json_format.Parse(text, Published(), ignore_unknown_fields=False)

    def unique(pairs):
        check(len(dict(pairs)) == len(pairs), f"a name comes twice in {text}")
        return dict(pairs)

    report = json.loads(text, object_pairs_hook=unique)
    check(set(report) <= set(TEXT_NAMES), f"names of the standard, not {text}")
    check(all(value >= 0 for value in report.values()), f"no negative number, not {text}")
    check(values(message) == nonzero(report), f"protobuf reads {message} from {text}")
    return report


def rejects():
    """The rules above are as strict as they say."""
    bad = {
        read_json: ['{"queue":1}', '{"eps":1,"eps":2}', '{"eps":"x"}', '{"eps":NaN}', '{"eps":-1}',
                    '{"eps":1', '{"named_metrics":{"queue":1}}'],
        read_text: ["queue=1", "eps=1,eps=2", "eps=x", "eps=nan", "eps=-1", "eps=inf", "eps=1e999",
                    "eps=-0", "eps=", "eps=1_0", ""],
    }
    for read, reports in bad.items():
        form = "JSON " if read is read_json else "TEXT "
        for report in reports:
            try:
                read(form + report)
            except (Wrong, ValueError, json_format.ParseError):
                continue
            raise Wrong(f"{form}{report} was read")


def all_forms(asking):
    """The forms of one report: it changes twice a second, so they are asked for until they are of one."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        forms = ["json", "text", "bin", None, "json"]
        headers = [asking.header(form) for form in forms]
        if None in headers or headers[0] != headers[-1]:
            continue
        first, text, binary, unasked, _ = headers
        return first, text, binary, unasked
    raise Wrong("no two reports were alike")


def agree(when, asking, classes):
    first, text, binary, unasked = all_forms(asking)
    print(f"{when}:\n  {first}\n  {text}\n  {binary}")
    check(unasked == first, f"JSON where nothing is asked for, not {unasked!r}")
    report = read_json(first)
    check(list(report) == SENT, f"{SENT}, not {list(report)}")
    check(read_text(text) == report, "TEXT and JSON differ")
    check(read_binary(binary, classes) == nonzero(report), "BIN and JSON differ")
    return report


def main():
    port, ours, written = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    classes = {
        "ours": defined(ours, "xds.data.orca.v3.OrcaLoadReport"),
        "published": Published,
        "written": defined(written, "written.Report"),
    }
    shapes = {name: shape(message) for name, message in classes.items()}
    published = shapes["published"]
    for name, found in shapes.items():
        check(found == published, f"{name} differs: {found} and {published}")
    print(f"{len(published)} fields, the same in {', '.join(classes)}")
    rejects()

    asking = Asking(port)
    deadline = time.monotonic() + LIMIT_SECONDS
    while asking.header("json") is None:
        check(time.monotonic() < deadline, "never ready")
        time.sleep(0.1)
    wrong_at_rest = None
    try:
        agree("at rest", asking, classes)
    except Wrong as wrong:
        # What there is under load is worth knowing all the same.
        wrong_at_rest = wrong

    end = time.monotonic() + 4
    while time.monotonic() < end:
        asking.header("text")
        time.sleep(0.005)
    report = agree("under load", asking, classes)
    check(report["rps_fractional"] > 0, "requests a second are seen")
    check(report["application_utilization"] > 0, "so is the utilization")
    for form in ["JSON", "Text", "BIN"]:
        found = asking.header(form)
        check(found.startswith(form.upper() + " "), f"{form} in any case, not {found!r}")
    if wrong_at_rest is not None:
        raise Wrong(f"at rest: {wrong_at_rest}")
    print("ok")


try:
    main()
except Wrong as wrong:
    sys.exit(f"FAILED: {wrong}")
