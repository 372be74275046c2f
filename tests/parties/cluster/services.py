"""Stand-ins for kube-proxy and the cluster's DNS."""

import asyncio
import random
import socket
import struct
import threading

from . import api, network

IDLE = 0.3
CONNECT = 3


class Services:
    """Listens on the addresses of all Services and answers their names."""

    def __init__(self):
        self.services = api.Watched("/api/v1/services")
        self.slices = api.Watched("/apis/discovery.k8s.io/v1/endpointslices")
        # What the DNS does: "answer", "fail" (SERVFAIL) or "silent".
        self.dns = "answer"
        self.listeners = {}
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()

    def endpoints(self, namespace, name, ready=True):
        """Addresses of a Service, each with its ports by name."""
        found = []
        for item in self.slices.of(namespace):
            if item["metadata"].get("labels", {}).get("kubernetes.io/service-name") != name:
                continue
            ports = {port.get("name") or "": port["port"] for port in item.get("ports") or []}
            for endpoint in item.get("endpoints") or []:
                if ready and endpoint.get("conditions", {}).get("ready") is False:
                    continue
                found += [(address, ports) for address in endpoint["addresses"]]
        return found

    async def _run(self):
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: Dns(self), local_addr=(network.DNS, 53))
        while True:
            await self._listen()
            await asyncio.sleep(IDLE)

    async def _listen(self):
        wanted = {}
        for (namespace, name), item in list(self.services.objects.items()):
            address = item["spec"].get("clusterIP")
            if address in (None, "", "None", network.DNS):
                continue
            for port in item["spec"].get("ports", []):
                if port.get("protocol", "TCP") == "TCP":
                    wanted[address, port["port"]] = namespace, name, port.get("name") or ""
        for place in set(self.listeners) - set(wanted):
            self.listeners.pop(place)[0].close()
            if not any(address == place[0] for address, _ in wanted):
                network.withdraw(place[0])
        for place, service in wanted.items():
            if self.listeners.get(place, (None, None))[1] == service:
                continue
            if place in self.listeners:
                self.listeners.pop(place)[0].close()
            network.serve(place[0])
            try:
                self.listeners[place] = await asyncio.start_server(self._forward(*service), *place), service
            except OSError:
                # An address that was only just added cannot be listened on yet; the next round tries again.
                continue

    def _forward(self, namespace, name, port):
        async def forward(reader, writer):
            endpoints = self.endpoints(namespace, name)
            random.shuffle(endpoints)
            for address, ports in endpoints:
                try:
                    ends = await asyncio.wait_for(asyncio.open_connection(address, ports[port]), CONNECT)
                except (OSError, asyncio.TimeoutError):
                    continue
                await asyncio.gather(pump(reader, ends[1]), pump(ends[0], writer))
                return
            # As kube-proxy without an endpoint: the connection is reset.
            reset = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            writer.close()

        return forward

    def addresses(self, labels):
        """The addresses of a name of the cluster, None where there is no such name."""
        if labels[-3:] != ["svc", "cluster", "local"] or len(labels) < 5:
            return None
        namespace, name = labels[-4], labels[-5]
        item = self.services.objects.get((namespace, name))
        if item is None:
            return None
        if item["spec"].get("clusterIP") == "None":
            # CoreDNS knows no name of a headless Service without endpoints.
            return [address for address, _ in self.endpoints(namespace, name)] or None
        return [item["spec"]["clusterIP"]]


async def pump(reader, writer):
    """Copies until one side ends."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


class Dns(asyncio.DatagramProtocol):
    """Answers A queries for the names of Services."""

    def __init__(self, services):
        self.services = services
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if self.services.dns != "silent":
            self.transport.sendto(answer(self.services, data), address)


def answer(services, query):
    """The answer to one query, as a message."""
    number, at, labels = query[:2], 12, []
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += query[at] + 1
    (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
    question = query[12 : at + 5]
    if services.dns == "fail":
        return number + struct.pack(">5H", 0x8182, 1, 0, 0, 0) + question
    found = services.addresses(labels)
    addresses = random.sample(found, len(found)) if found and kind == 1 else []
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(item) for item in addresses)
    code = 0x8580 | (3 if found is None else 0)
    return number + struct.pack(">5H", code, 1, len(addresses), 0, 0) + question + records
