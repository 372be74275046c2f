"""Asks `intentd scaler` as KEDA does, by the gRPC library of another stack.

Starts replicas and the scaler, drives all five calls in plain text, under TLS and under mutual TLS,
and fails at the first answer that is not what KEDA would need. Run by scaler.sh, which makes the stubs.
"""

import json
import queue
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc

import externalscaler_pb2 as pb
import externalscaler_pb2_grpc as pb_grpc

LIMIT_SECONDS = 60  # for anything that has to come in the end


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """A scaler that ends leaves its connections as they are."""


class Replica:
    """Publishes a demand as a server does."""

    def __init__(self, demand):
        self.demand = demand
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.path != "/autoscaling":
                    self.send_error(404)
                    return
                body = json.dumps(replica.report()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def report(self):
        return {
            "schema_version": 1,
            "pod": f"intentd-{self.server.server_port}",
            "model": "snips",
            "demand_replicas": self.demand,
            "demand_percent": round(self.demand * 100),
            "offered_rps": 10.5,
            "capacity_rps": 123.4,
            "in_flight": 0,
            "queue_depth": 0,
            "confidence": 0.9,
            "startup_seconds": 2.5,
        }


class Scaler:
    """The program, on free ports."""

    def __init__(self, program, replicas, flags=()):
        command = [program, "scaler", "--host", "127.0.0.1", "--port", "0", "--admin-port", "0"]
        command += ["--interval", "50ms", "--replicas", ",".join(r.place for r in replicas)]
        self.process = subprocess.Popen(
            command + list(flags), stderr=subprocess.PIPE, text=True, env={}
        )
        for line in self.process.stderr:
            if "serving KEDA" in line:
                self.port = int(re.search(r":(\d+)\s*$", line).group(1))
                break
        else:
            sys.exit("the scaler did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def memory(self):
        """The most that was resident, and the pages of files (the program, libraries) that are, in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return [int(re.search(rf"{name}:\s+(\d+)", status).group(1)) for name in ("VmHWM", "RssFile")]

    def end(self):
        self.process.terminate()
        code = self.process.wait(LIMIT_SECONDS)
        check(code == 0, f"the scaler ends with {code}")

    def kill(self):
        self.process.kill()
        self.process.wait()


def check(is_so, what):
    if not is_so:
        raise AssertionError(what)


def until(what, ask):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not ask():
        check(time.monotonic() < deadline, f"it never came: {what}")
        time.sleep(0.02)


def refused(call, code):
    try:
        call()
    except grpc.RpcError as error:
        check(error.code() == code, f"expected {code}, found {error}")
        return error.details()
    raise AssertionError(f"expected {code}, found an answer")


def trigger(**metadata):
    metadata["scalerAddress"] = "intentd-scaler:9101"
    return pb.ScaledObjectRef(name="intentd", namespace="test", scalerMetadata=metadata)


class Following:
    """A stream, read by a thread of its own."""

    def __init__(self, call):
        self.call = call
        self.messages = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for message in self.call:
                self.messages.put(message)
            self.messages.put(None)
        except grpc.RpcError as error:
            self.messages.put(error)

    def next(self):
        return self.messages.get(timeout=LIMIT_SECONDS)


def all_calls(stub, replicas):
    """What KEDA does with a trigger, from its first look to a change. Gives the open streams."""
    replicas[0].demand, replicas[1].demand = 1.25, 0.5
    (spec,) = stub.GetMetricSpec(trigger()).metricSpecs
    check(spec.metricName == "demand", spec)
    check((spec.targetSizeFloat, spec.targetSize) == (1.0, 1), spec)

    def value():
        request = pb.GetMetricsRequest(scaledObjectRef=trigger(), metricName=spec.metricName)
        (found,) = stub.GetMetrics(request).metricValues
        check(found.metricName == spec.metricName, found)
        return found.metricValueFloat, found.metricValue

    until("the sum", lambda: value() == (1.75, 2))
    for _ in range(20):
        check(value() == (1.75, 2), "the sum is steady")
        check(stub.IsActive(trigger()).result, "there is work")

    activity = Following(stub.StreamIsActive(trigger()))
    check(activity.next().result, "the stream begins with what is")
    replicas[0].demand = replicas[1].demand = 0.0
    check(not activity.next().result, "the stream says the change")
    check(value() == (0.0, 0), "none is none")
    check(not stub.IsActive(trigger()).result, "there is no work")
    replicas[1].demand = 3.5
    check(activity.next().result, "the stream says the change back")

    target = Following(stub.StreamMetricSpec(trigger(target="0.8")))
    (spec,) = target.next().metricSpecs
    check((spec.targetSizeFloat, spec.targetSize) == (0.8, 1), spec)

    why = refused(lambda: stub.IsActive(trigger(target="none")), grpc.StatusCode.INVALID_ARGUMENT)
    check("target" in why, why)
    bad = pb.GetMetricsRequest(scaledObjectRef=trigger(), metricName="other")
    refused(lambda: stub.GetMetrics(bad), grpc.StatusCode.INVALID_ARGUMENT)
    nobody = trigger(replicas="127.0.0.1:1")
    why = refused(lambda: stub.IsActive(nobody), grpc.StatusCode.UNAVAILABLE)
    check("127.0.0.1:1" in why, why)
    return activity, target


def connected(channel):
    grpc.channel_ready_future(channel).result(timeout=LIMIT_SECONDS)
    return pb_grpc.ExternalScalerStub(channel)


def drive(name, program, replicas, flags, channel_to):
    scaler = Scaler(program, replicas, flags)
    try:
        with channel_to(scaler.port) as channel:
            streams = all_calls(connected(channel), replicas)
            scaler.end()
            for stream in streams:
                check(stream.next() is None, "the stream ends well with the process")
    finally:
        scaler.kill()
    print(f"{name}: all calls answered as KEDA needs them")


def secure(directory, client=None):
    read = lambda name: (directory / name).read_bytes()
    pair = (read(f"{client}.key"), read(f"{client}.pem")) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(read("ca.pem"), *pair)
    return lambda port: grpc.secure_channel(f"localhost:{port}", credentials)


def turned_away(name, program, replicas, flags, channel_to):
    scaler = Scaler(program, replicas, flags)
    try:
        with channel_to(scaler.port) as channel:
            stub = pb_grpc.ExternalScalerStub(channel)
            refused(lambda: stub.IsActive(trigger()), grpc.StatusCode.UNAVAILABLE)
        scaler.end()
    finally:
        scaler.kill()
    print(f"{name}: turned away")


def memory(program):
    """A thousand calls with a hundred replicas; the process stays small."""
    replicas = [Replica(0.5) for _ in range(100)]
    scaler = Scaler(program, replicas)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{scaler.port}") as channel:
            stub = connected(channel)
            request = pb.GetMetricsRequest(scaledObjectRef=trigger(), metricName="demand")
            ask = lambda: stub.GetMetrics(request).metricValues[0].metricValueFloat
            until("the sum", lambda: ask() == 50.0)
            with ThreadPoolExecutor(8) as pool:
                sums = list(pool.map(lambda _: ask(), range(1000)))
            check(set(sums) == {50.0}, "the sum is steady")
            peak, file = scaler.memory()
        scaler.end()
    finally:
        scaler.kill()
    print(f"memory: at most {peak} KiB after 1000 calls, 100 replicas, of which {file} KiB are pages of files")
    # An unoptimised program is several times as large, and says nothing about what it holds.
    check(peak - file < 20 << 10, "less than 20 MiB beside pages of files")


def main():
    program, directory = sys.argv[1], Path(sys.argv[2])
    replicas = [Replica(0.0), Replica(0.0)]
    drive("plain text", program, replicas, [], lambda p: grpc.insecure_channel(f"127.0.0.1:{p}"))
    tls = ["--tls-cert", directory / "server.pem", "--tls-key", directory / "server.key"]
    mutual = [*tls, "--tls-client-ca", directory / "ca.pem"]
    drive("TLS", program, replicas, tls, secure(directory))
    drive("mutual TLS", program, replicas, mutual, secure(directory, "client"))
    turned_away("no certificate", program, replicas, mutual, secure(directory))
    turned_away("another authority", program, replicas, mutual, secure(directory, "stranger"))
    memory(program)
    print("ok")


main()
