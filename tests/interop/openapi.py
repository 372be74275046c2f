"""Holds a server to its own description. Run by openapi.sh, in a directory that may be written to.

First by what schemathesis makes up from the description, which is always the same by its seed. Then by requests
that it does not come upon, whose answers it judges all the same: status, type and shape as they are described.
"""

import json
import subprocess
import sys
import time

import requests
import schemathesis
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.errors import FailureGroup
from schemathesis.specs.openapi import checks

# Requests a route: enough to come upon all that is found by many more.
EXAMPLES = 60
SEED = 1
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance", "response_headers_conformance", "unsupported_method",
          "allow_header_conformance"]
LIMIT_SECONDS = 60

JSON = "application/json"
EVENT = {"specversion": "1.0", "id": "1", "source": "/a", "type": "b", "data": "play some jazz"}
TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["play some jazz"]}
NAMES = {"model": "intentd", "version": "1"}
KAFKA = {"ce-specversion": "1.0", "ce-id": "partition:0/offset:7", "ce-source": "/a", "ce-type": "b"}


class Wrong(Exception):
    """Something is not as it should be; the message says how it should be."""


def well_formed(base):
    """By OpenAPI's own schema, which schemathesis does not ask for."""
    document = requests.get(f"{base}/openapi.json", timeout=LIMIT_SECONDS).json()
    for error in OpenAPIV31SpecValidator(document).iter_errors():
        raise Wrong(f"the document is OpenAPI 3.1: {list(error.path)}: {error.message}")
    print("ok the document is OpenAPI 3.1")


def made_up(port):
    """The program, as others run it."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{port}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"]
    command += ["--max-examples", f"{EXAMPLES}", "--seed", f"{SEED}", "--continue-on-failure", "--no-color"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode != 0:
        raise Wrong(f"schemathesis finds nothing, not\n{ran.stdout}")
    # What is run without a request would find nothing either.
    tested = [line.strip() for line in ran.stdout.splitlines() if "generated" in line]
    if not tested:
        raise Wrong(f"schemathesis says how many requests it made, not\n{ran.stdout}")
    print(f"ok schemathesis: {tested[0]}")


def form(text):
    return "application/x-www-form-urlencoded", text


def of_json(value, type_=JSON):
    return type_, json.dumps(value)


def cases():
    """Route, method, status, content (its type and itself, or none), headers, query string."""
    for accept in [None, JSON, "text/html", "text/plain"]:
        headers = {} if accept is None else {"Accept": accept}
        yield "/predict", "GET", 200, None, headers, "query=play some jazz"
        yield "/predict", "POST", 200, of_json({"query": "play some jazz"}), headers, ""
    yield "/predict", "GET", 504, None, {"x-request-timeout-ms": "0"}, "query=a"
    yield "/predict", "GET", 400, None, {}, ""
    yield "/predict", "GET", 400, None, {}, "query=a&query=b"
    for route in ["/predict", "/", "/invocations"]:
        yield from predictions(route)
        if route != "/invocations":
            yield from events(route)
    for version in ["", "/versions/{version}"]:
        yield from inference(f"/v2/models/{{model}}{version}")
    for inputs in ["play", ["play", "some"]]:
        for special in [True, False]:
            yield "/tokenize", "POST", 200, of_json({"inputs": inputs, "add_special_tokens": special}), {}, ""
    yield "/tokenize", "POST", 415, form("inputs=a"), {}, ""
    for route in ["/info", "/health", "/ping", "/healthz", "/readyz", "/v2", "/v2/health/live",
                  "/v2/health/ready", "/openapi.json"]:
        yield route, "GET", 200, None, {}, ""
        yield route, "DELETE", 405, None, {}, ""
    yield "/", "GET", 303, None, {}, ""


def predictions(route):
    for status, value in {
        200: [{"query": "play"}, {"query": ["play", "book"]}, ["play", "book"], ["play"],
              {"inputs": "play"}, {"inputs": ["play", "now"]}, {"inputs": [["play"], ["a", "b"]]},
              {"inputs": ["a", "b", "c"]}, {"inputs": "play", "raw_scores": True},
              {"inputs": "play", "parameters": {"top_k": 3, "function_to_apply": "sigmoid"}}],
        400: [[], {"inputs": []}],
        422: [{}, {"query": 7}, {"inputs": 7}, {"query": "a", "truncate": "no"}, ["a"] * 1000,
              {"query": "a " * 400, "truncate": False}],
    }.items():
        for one in value:
            yield route, "POST", status, of_json(one), {}, ""
    yield route, "POST", 200, form("query=play"), {}, ""
    yield route, "POST", 400, (JSON, "{"), {}, ""
    yield route, "POST", 413, (JSON, " " * 3_000_000), {}, ""
    yield route, "POST", 415, ("image/png", "a"), {}, ""
    yield route, "POST", 415, of_json({"query": "a"}), {"Content-Encoding": "gzip"}, ""
    yield route, "DELETE", 405, None, {}, ""
    yield route, "POST", 504, of_json({"query": "a"}), {"x-request-timeout-ms": "0"}, ""


def events(route):
    one, many = "application/cloudevents+json", "application/cloudevents-batch+json"
    for more in [{}, {"Prefer": "reply"}]:
        yield route, "POST", 200, of_json(EVENT, one), more, ""
        yield route, "POST", 200, of_json(EVENT | {"data": ["play", "book"]}, one), more, ""
        yield route, "POST", 200, of_json([EVENT, {}, EVENT | {"data": ["play"]}], many), more, ""
        yield route, "POST", 200, of_json([], many), more, ""
        yield route, "POST", 200, ("text/plain", "play"), KAFKA | more, ""
        yield route, "POST", 200, (None, "play"), KAFKA | more, ""
    yield route, "POST", 200, of_json(EVENT, one), {"Accept": "text/plain"}, ""
    yield route, "POST", 200, of_json(EVENT, one), {}, "query=play some jazz"
    yield route, "POST", 400, of_json({}, one), {}, ""
    yield route, "POST", 400, of_json([{}], many), {}, ""
    yield route, "POST", 400, (None, ""), KAFKA, ""
    yield route, "POST", 415, ("image/png", "a"), KAFKA, ""
    yield route, "POST", 422, of_json(EVENT | {"data": 7}, one), {}, ""


def inference(model):
    yield model, "GET", 200, None, {}, ""
    yield f"{model}/ready", "GET", 200, None, {}, ""
    infer = f"{model}/infer"
    for more in [{}, {"id": "7"}, {"outputs": [{"name": "label"}, {"name": "logits"}]},
                 {"outputs": [{"name": "scores", "parameters": {"classification": 2}}]},
                 {"parameters": {"binary_data_output": True}},
                 {"outputs": [{"name": "score", "parameters": {"binary_data": True}}]}]:
        yield infer, "POST", 200, of_json({"inputs": [TENSOR]} | more), {}, ""
    nested = TENSOR | {"shape": [2, 1], "data": [["play"], ["book"]]}
    yield infer, "POST", 200, of_json({"inputs": [nested]}), {}, ""
    pair = [TENSOR, TENSOR | {"name": "text_pair"}]
    yield infer, "POST", 200, of_json({"inputs": pair}), {}, ""
    yield infer, "POST", 400, of_json({"inputs": [TENSOR | {"shape": [0], "data": []}]}), {}, ""
    for wrong in [{"inputs": []}, {"inputs": [TENSOR | {"shape": [2]}]}, {"inputs": [TENSOR | {"datatype": "FP32"}]},
                  {"inputs": [TENSOR], "outputs": [{"name": "nothing"}]}]:
        yield infer, "POST", 422, of_json(wrong), {}, ""
    yield infer, "POST", 504, of_json({"inputs": [TENSOR], "parameters": {"timeout": 1}}), {}, ""
    yield infer, "DELETE", 405, None, {}, ""


def judge(schema, base, case):
    """Asks, and holds the answer against what the description says of its route."""
    route, method, status, content, headers, query = case
    path = route.format(**NAMES)
    type_, body = content or (None, None)
    if type_ is not None:
        headers = {"Content-Type": type_} | headers
    what = f"{method} {path}?{query} {headers} {(body or '')[:80]}"
    response = requests.request(method, base + path, params=query, data=body, headers=headers,
                                allow_redirects=False, timeout=LIMIT_SECONDS)
    if response.status_code != status:
        raise Wrong(f"{what}: {status}, not {response.status_code} {response.text[:200]}")
    methods = schema.raw_schema["paths"][route]
    # What is said to a method that a route does not have stands at those that it has.
    described = method if method.lower() in methods else next(iter(methods)).upper()
    names = {name: value for name, value in NAMES.items() if f"{{{name}}}" in route}
    try:
        schema[route][described].Case(path_parameters=names).validate_response(response, checks=[
            checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance,
        ])
    except FailureGroup as failures:
        words = "\n".join(f"{failure.title}: {failure.message}" for failure in failures.exceptions)
        found = f"{response.status_code} {response.headers} {response.text[:200]}"
        raise Wrong(f"{what}: an answer as it is described, not {found}\n{words}") from None


def until_ready(base):
    deadline = time.monotonic() + LIMIT_SECONDS
    while requests.get(f"{base}/readyz", timeout=LIMIT_SECONDS).status_code != 200:
        if time.monotonic() > deadline:
            raise Wrong("/readyz answers 200 in the end")
        time.sleep(0.05)


def main():
    port = int(sys.argv[1])
    base = f"http://127.0.0.1:{port}"
    until_ready(base)
    well_formed(base)
    made_up(port)
    schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
    asked = 0
    for case in cases():
        judge(schema, base, case)
        asked += 1
    print(f"ok {asked} requests are answered as it is described")


try:
    main()
except Wrong as wrong:
    sys.exit(f"FAILED: {wrong}")
