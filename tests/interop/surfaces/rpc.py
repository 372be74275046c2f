"""gRPC as others speak it: reflection, health, load reports, deadlines, and what a server says before it ends."""

import asyncio
import json
import os
import queue
import signal
import threading
import time

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.events import RecvTrailingMetadata, listen
from grpclib.exceptions import GRPCError
from tritonclient.grpc import service_pb2
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport

from support import JAZZ, LIMIT_SECONDS, Wrong, ask, check, fails, ok
from triton import HEAVY, MODEL

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"
INFER = f"/{SERVICE}/ModelInfer"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def channel_to(port, options=None):
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=options)


def request(texts):
    """By Triton's own messages."""
    message = service_pb2.ModelInferRequest(model_name=MODEL)
    tensor = message.inputs.add(name="text", datatype="BYTES", shape=[len(texts)])
    tensor.contents.bytes_contents.extend(text.encode() for text in texts)
    message.outputs.add(name="label")
    return message


def infer(channel):
    return channel.unary_unary(
        INFER,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )


def label(answer):
    return answer.outputs[0].contents.bytes_contents[0].decode()


def reflection(channel):
    """A call made of nothing but what the server says of itself, as grpcurl makes it."""
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    check({SERVICE, HEALTH} <= services, f"reflection lists {SERVICE} and {HEALTH}, not {services}")
    pool = descriptor_pool.DescriptorPool(database)
    service = pool.FindServiceByName(SERVICE)
    methods = {method.name for method in service.methods}
    wanted = {"ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"}
    check(methods == wanted, f"{wanted}, not {methods}")
    method = service.FindMethodByName("ModelInfer")
    asked, answered = (message_factory.GetMessageClass(type_) for type_ in (method.input_type, method.output_type))
    # In the JSON of protobuf, bytes are base64.
    text = {"model_name": MODEL, "id": "r", "inputs": [
        {"name": "text", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": ["cGxheSBzb21lIGpheno="]}},
    ], "outputs": [{"name": "label"}]}
    call = channel.unary_unary(f"/{service.full_name}/{method.name}", asked.SerializeToString, answered.FromString)
    answer = call(json_format.ParseDict(text, asked()), timeout=LIMIT_SECONDS)
    check((label(answer), answer.id) == ("PlayMusic", "r"), f"PlayMusic and the id, not {answer}")
    check(pool.FindServiceByName(HEALTH).FindMethodByName("Watch").server_streaming, "Watch is a stream")
    missing = fails(lambda: pool.FindServiceByName("no.Such"), (grpc.RpcError, KeyError), "a service that is not")
    if isinstance(missing, grpc.RpcError):
        check(missing.code() == grpc.StatusCode.NOT_FOUND, f"NOT_FOUND, not {missing.code()}")
    ok("grpc: a call by reflection alone")

    # The stable version has the same messages under another name; newer tools ask for it first.
    call = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [reflection_pb2.ServerReflectionRequest(list_services="*"),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.ModelInfer")]
    listed, file = call(iter(requests), timeout=LIMIT_SECONDS)
    services = {service.name for service in listed.list_services_response.service}
    check({SERVICE, HEALTH} <= services, f"reflection v1 lists {SERVICE} and {HEALTH}, not {services}")
    check(file.file_descriptor_response.file_descriptor_proto, f"a file with the method, not {file}")
    ok("grpc: reflection v1")


def refused(code, call, what):
    error = fails(call, grpc.RpcError, what)
    check(error.code() == code, f"{what}: {code}, not {error.code()}: {error.details()}")


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ["", SERVICE]:
        status = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT_SECONDS).status
        check(status == SERVING, f"{name!r} is SERVING, not {status}")
        first = next(stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT_SECONDS)).status
        check(first == SERVING, f"who watches {name!r} hears SERVING at once, not {first}")
    unknown = health_pb2.HealthCheckRequest(service="no.Such")
    refused(grpc.StatusCode.NOT_FOUND, lambda: stub.Check(unknown), "the health of what there is not")
    first = next(stub.Watch(unknown, timeout=LIMIT_SECONDS)).status
    check(first == SERVICE_UNKNOWN, f"who watches what there is not hears SERVICE_UNKNOWN, not {first}")
    ok("grpc: health")


def mistakes(channel):
    raw = lambda path: channel.unary_unary(path)(b"", timeout=LIMIT_SECONDS)
    for path in [f"/{SERVICE}/ModelStreamInfer", f"/{SERVICE}/RepositoryIndex", "/no.Such/Call"]:
        refused(grpc.StatusCode.UNIMPLEMENTED, lambda: raw(path), path)
    long = request(["a " * 2_000_000])
    refused(grpc.StatusCode.OUT_OF_RANGE, lambda: infer(channel)(long), "a message of 4 MB")
    check(answers(channel), "PlayMusic after all that")
    ok("grpc: mistakes, by their codes")


async def load_report(port):
    """By a gRPC library in Python alone: the one in C keeps reports for its balancers and hands out none."""
    trailers = []

    async def keep(event):
        trailers.append(dict(event.metadata))

    channel = Channel("127.0.0.1", port)
    listen(channel, RecvTrailingMetadata, keep)
    call = UnaryUnaryMethod(channel, INFER, service_pb2.ModelInferRequest, service_pb2.ModelInferResponse)
    try:
        for form, is_report in [(None, False), ("text", True), ("json", True), ("bin", True), ("xml", False)]:
            metadata = {} if form is None else {"endpoint-load-metrics-format": form}
            answer = await call(request([JAZZ]), metadata=metadata)
            check(label(answer) == "PlayMusic", f"PlayMusic, not {answer}")
            found = trailers[-1].get("endpoint-load-metrics-bin")
            check((found is not None) == is_report, f"asked for {form}: a report: {is_report}, not {trailers[-1]}")
            if is_report:
                read_report(found)
        deadline = time.monotonic() + LIMIT_SECONDS
        while not is_loaded(trailers[-1]):
            check(time.monotonic() < deadline, f"the load is reported in the end, not {trailers[-1]}")
            await asyncio.sleep(0.1)
            await call(request([JAZZ]), metadata={"endpoint-load-metrics-format": "text"})
        other = request([JAZZ])
        other.model_name = "nobody"
        try:
            await call(other, metadata={"endpoint-load-metrics-format": "text"})
            raise Wrong("an unknown model is an error")
        except GRPCError:
            read_report(trailers[-1].get("endpoint-load-metrics-bin"))
    finally:
        channel.close()


def read_report(data):
    """As strict as those who balance by it; the message is the one that gRPC publishes."""
    check(data is not None, "a report in the trailers")
    report, known = OrcaLoadReport.FromString(data), OrcaLoadReport.FromString(data)
    known.DiscardUnknownFields()
    check(known == report, f"no unknown field in {data.hex()}")
    names = {field.name for field, _ in report.ListFields()}
    check(names <= {"application_utilization", "rps_fractional", "eps"}, f"fields of the standard, not {names}")
    return report


def is_loaded(trailers):
    data = trailers.get("endpoint-load-metrics-bin")
    report = OrcaLoadReport() if data is None else read_report(data)
    return report.rps_fractional > 0 and report.application_utilization > 0


def deadlines(channel):
    """Who gives too little time hears that it was too little, whoever notices first."""
    call = infer(channel)
    for texts, timeout in [([JAZZ], -1), ([JAZZ], 0.001), (HEAVY, 0.001), (HEAVY, 0.003)]:
        for _ in range(20):
            try:
                answer = call(request(texts), timeout=timeout)
            except grpc.RpcError as error:
                check(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED,
                      f"{timeout} s for {len(texts)} texts: DEADLINE_EXCEEDED or an answer, not {error.code()}: "
                      f"{error.details()}")
            else:
                check(timeout > 0, f"no answer once the time is up, not {answer}")
    check(answers(channel), "PlayMusic after all that")
    ok("grpc: deadlines")


class Watching:
    """A stream of the health service, read by a thread of its own."""

    def __init__(self, channel, service):
        self.heard = queue.Queue()
        self.call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service))
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for message in self.call:
                self.heard.put(message.status)
            self.heard.put("the end")
        except grpc.RpcError as error:
            self.heard.put(error.code())

    def next(self):
        return self.heard.get(timeout=LIMIT_SECONDS)


def balanced(port, states):
    """A channel that watches the health of its server itself; `states` gets those that it goes through."""
    config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": SERVICE}}
    channel = channel_to(port, [("grpc.service_config", json.dumps(config))])
    channel.subscribe(states.append, try_to_connect=True)
    return channel


def the_end(port, process):
    """The server is told to end, and goes on for two seconds (--lame-duck)."""
    states = []
    # They are closed whatever comes: one that is open keeps Python from its end.
    with channel_to(port) as channel, balanced(port, states) as by_health:
        deadline = time.monotonic() + LIMIT_SECONDS
        while grpc.ChannelConnectivity.READY not in states:
            check(time.monotonic() < deadline, f"a channel that looks at health gets ready, not {states}")
            time.sleep(0.01)
        check(answers(by_health), "a channel that looks at health is answered")
        watching = [Watching(channel, name) for name in ["", SERVICE]]
        for one in watching:
            first = one.next()
            check(first == SERVING, f"SERVING first, not {first}")
        before = len(states)
        told = time.monotonic()
        os.kill(process, signal.SIGTERM)
        lame_duck(port, channel, watching)
        took = time.monotonic() - told
        check(took < 1.5, f"NOT_SERVING while there is time to go elsewhere, not after {took:.1f} s")

        time.sleep(max(0, told + 1.5 - time.monotonic()))
        call = lambda: infer(by_health)(request([JAZZ]), timeout=LIMIT_SECONDS)
        refused(grpc.StatusCode.UNAVAILABLE, call, "a channel that looks at health")
        changes = len(states) - before
        # One is enough. A stream that ends is opened again at once by clients, and again, as fast as they can.
        check(changes < 10, f"a channel that looks at health leaves once, not with {changes} changes in 1.5 s")
        ok("grpc: a channel that looks at health goes elsewhere, once")
        for one in watching:
            one.next()


def answers(channel):
    return label(infer(channel)(request([JAZZ]), timeout=LIMIT_SECONDS)) == "PlayMusic"


def lame_duck(port, channel, watching):
    for one in watching:
        then = one.next()
        check(then == NOT_SERVING, f"NOT_SERVING after SIGTERM, not {then}")
    check(answers(channel), "who comes nevertheless is answered")
    check(ask(port, "GET", "/readyz").status == 503, "/readyz answers 503")
    ok("grpc: who watches hears NOT_SERVING after SIGTERM, and is answered")


def run(port):
    with channel_to(port) as channel:
        reflection(channel)
        health(channel)
        mistakes(channel)
        asyncio.run(load_report(port))
        ok("grpc: load reports in the trailers, as gRPC publishes the message")
        deadlines(channel)
