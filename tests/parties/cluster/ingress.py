"""A stand-in for Knative's ingress: hosts, headers and Services as the Ingress objects say, a request at a time."""

import asyncio
import threading

from . import api, network
from .container import now

ADDRESS = "10.200.0.80"
PATH = "/apis/networking.internal.knative.dev/v1alpha1"
CONNECT = 3


class Ingress:
    """Says of every Ingress object that it is ready, and forwards what comes for its hosts."""

    def __init__(self, services):
        self.services = services
        self.routes = {}
        self.turn = 0
        self.watch = api.Watched(f"{PATH}/ingresses", self._changed)
        network.serve(ADDRESS)
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()

    def _changed(self, kind, item):
        if kind == "DELETED":
            return
        for rule in item["spec"].get("rules", []):
            for host in rule["hosts"]:
                self.routes[host] = rule["http"]["paths"][0]["splits"][0]
        generation = item["metadata"]["generation"]
        if item.get("status", {}).get("observedGeneration") == generation:
            return
        kinds = ("LoadBalancerReady", "NetworkConfigured", "Ready")
        conditions = [{"type": name, "status": "True", "lastTransitionTime": now()} for name in kinds]
        balancer = {"ingress": [{"ip": ADDRESS}]}
        status = {"observedGeneration": generation, "conditions": conditions}
        status.update(publicLoadBalancer=balancer, privateLoadBalancer=balancer)
        namespace, name = api.key(item)
        path = f"{PATH}/namespaces/{namespace}/ingresses/{name}/status"
        threading.Thread(
            target=api.unless_gone, args=("PATCH", path, {"status": status}, api.MERGE), daemon=True
        ).start()

    async def _run(self):
        server = await asyncio.start_server(self._serve, ADDRESS, 80, backlog=512)
        await server.serve_forever()

    def _target(self, head):
        """Where a request goes, and the headers that go with it."""
        lines = head.decode("latin-1").split("\r\n")
        host = next((line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("host:")), "")
        route = self.routes.get(host.split(":")[0])
        if route is None:
            return None, {}
        found = sorted(self.services.endpoints(route["serviceNamespace"], route["serviceName"]), key=lambda one: one[0])
        if not found:
            return None, {}
        self.turn += 1
        address, ports = found[self.turn % len(found)]
        # The Service's port is 80 or 81; its endpoints have the ports' names.
        return (address, ports.get("http") or ports.get("http2")), route.get("appendHeaders", {})

    async def _serve(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await rest(reader, head)
                await self._forward(head, body, writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _forward(self, head, body, writer):
        for _ in range(3):
            target, headers = self._target(head)
            if target is None:
                break
            try:
                ends = await asyncio.wait_for(asyncio.open_connection(*target), CONNECT)
            except (OSError, asyncio.TimeoutError):
                continue
            added = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
            ends[1].write(head[:-2] + added + b"connection: close\r\n\r\n" + body)
            try:
                answer = await ends[0].readuntil(b"\r\n\r\n")
                content = await rest(ends[0], answer)
            finally:
                ends[1].close()
            kept = b"\r\n".join(line for line in answer.split(b"\r\n") if not line.lower().startswith(b"connection:"))
            writer.write(kept + content)
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()


async def rest(reader, head):
    """The body that follows a head, as it came."""
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while not body.endswith(b"\r\n0\r\n\r\n") and body != b"0\r\n\r\n":
            body += await reader.readuntil(b"\r\n")
        return body
    return await reader.readexactly(int(fields.get(b"content-length", b"0")))
