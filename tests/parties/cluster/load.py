"""Load as a balancer that knows the endpoints gives it: evenly in time, one replica after the other.

`python3 -m cluster.load NAMESPACE SERVICE PORT [HEADER:VALUE…]` reads a rate a second, or `at N` for N requests at
once, from each line of its input, and prints a line of JSON a second.
"""

import asyncio
import collections
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse

from . import api
from .services import Services

# As long as the embedded model takes: a replica is then worth few requests a second, which two cores can send.
TEXT = " ".join(["play some quiet jazz by the band of last night"] * 20)
PATH = "/predict?query=" + urllib.parse.quote(TEXT)
TIMEOUT = 60


class Endpoints:
    """The ready endpoints of a Service, without the rest of the stand-in."""

    def __init__(self, namespace, service, port):
        self.namespace, self.service, self.port = namespace, service, port
        self.slices = api.Watched(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
        self.turn = 0

    endpoints = Services.endpoints

    def next(self, avoid=()):
        """The next endpoint in turn, another than those to avoid if there is one."""
        found = sorted((place, ports[self.port]) for place, ports in self.endpoints(self.namespace, self.service))
        found = [endpoint for endpoint in found if endpoint not in avoid] or found
        if not found:
            return None
        self.turn += 1
        return found[self.turn % len(found)]


class Generator:
    """Sends requests, and counts what becomes of them."""

    def __init__(self, endpoints, headers):
        self.endpoints = endpoints
        lines = "".join(f"{header}\r\n" for header in headers)
        self.request = f"GET {PATH} HTTP/1.1\r\nhost: intentd\r\n{lines}\r\n".encode()
        self.rate = 0.0
        self.sent = 0
        self.counts = collections.Counter()
        self.latencies = []
        self.idle = collections.defaultdict(list)

    async def _exchange(self, endpoint):
        """The status of one request over one connection."""
        kept = self.idle[endpoint]
        # A server closes what is idle for long; its balancer sees that before it sends.
        kept[:] = [(reader, writer) for reader, writer in kept if not reader.at_eof()]
        reader, writer = kept.pop() if kept else await asyncio.open_connection(*endpoint)
        try:
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            await reader.readexactly(int(fields[b"content-length"]))
        except BaseException:
            writer.close()
            raise
        if fields.get(b"connection") == b"close":
            writer.close()
        else:
            kept.append((reader, writer))
        return int(head.split()[1])

    async def _send(self):
        """One request. As a balancer does, it is sent again where a connection fails before an answer."""
        began = time.monotonic()
        tried = []
        for _ in range(3):
            endpoint = self.endpoints.next(tried)
            if endpoint is None:
                break
            tried.append(endpoint)
            try:
                status = await asyncio.wait_for(self._exchange(endpoint), TIMEOUT)
            # Before OSError, of which it is one.
            except TimeoutError:
                break
            except (OSError, asyncio.IncompleteReadError):
                self.counts["again"] += 1
                continue
            except (KeyError, ValueError, asyncio.LimitOverrunError):
                # Not an answer.
                break
            self.counts[str(status)] += 1
            self.latencies.append(time.monotonic() - began)
            return
        self.counts["lost"] += 1

    def _read(self, loop):
        for line in sys.stdin:
            word = line.split()
            if word[0] == "at":
                for _ in range(int(word[1])):
                    loop.call_soon_threadsafe(self.start)
            else:
                self.rate = float(word[0])
        # Whoever reads the counts has ended too.
        os._exit(0)

    def start(self):
        """Sends one request in the background."""
        self.sent += 1
        asyncio.get_running_loop().create_task(self._send())

    async def run(self):
        """Sends at the rate that was last told."""
        threading.Thread(target=self._read, args=(asyncio.get_running_loop(),), daemon=True).start()
        due, told = time.monotonic(), time.monotonic()
        while True:
            now = time.monotonic()
            if self.rate == 0:
                due = now
            while self.rate and due <= now:
                self.start()
                due += 1 / self.rate
            if now - told >= 1:
                told = now
                latest = sorted(self.latencies)
                self.latencies.clear()
                tail = latest[int(0.99 * (len(latest) - 1))] if latest else None
                print(json.dumps({"sent": self.sent, **self.counts, "p99": tail}), flush=True)
            await asyncio.sleep(0.005)


class Load:
    """A generator as a process of its own, so that neither slows the other."""

    def __init__(self, namespace, service="intentd", port="http", headers=()):
        line = [sys.executable, "-m", "cluster.load", namespace, service, port, *headers]
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.latest = {"sent": 0}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.latest = json.loads(line)

    def tell(self, text):
        """A rate, or `at N`."""
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def lost(self):
        """Requests without an answer that says what became of them."""
        told = ("200", "429")
        return sum(
            count for name, count in self.latest.items() if name == "lost" or (name.isdigit() and name not in told)
        )

    def refused(self):
        """Requests that were told to come later."""
        return self.latest.get("429", 0)


if __name__ == "__main__":
    watched = Endpoints(*sys.argv[1:4])
    watched.slices.listed.wait()
    asyncio.run(Generator(watched, sys.argv[4:]).run())
