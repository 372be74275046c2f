"""Addresses: a bridge for pods in the network namespace of the test, and a namespace for each pod."""

import itertools
import os
import subprocess
import threading

NODE = "10.200.0.1"
DNS = "10.96.0.10"
SERVICES = "10.96.0.0/16"

# An address is never used again: neighbours remember who had it.
ADDRESSES = (f"10.200.{third}.{fourth}" for third in range(1, 250) for fourth in range(1, 250))
LOCK = threading.Lock()


def ip(*arguments, check=True):
    """Runs `ip`."""
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


def prepare():
    """Makes the bridge; to be called once, in network and mount namespaces that are only the test's."""
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "netns", "/run/netns"], check=True)
    ip("link", "set", "lo", "up")
    ip("link", "add", "pods", "type", "bridge")
    ip("addr", "add", f"{NODE}/16", "dev", "pods")
    ip("link", "set", "pods", "up")
    serve(DNS)


def serve(address):
    """Gives an address of a Service to the node, for whoever listens on it."""
    ip("addr", "add", f"{address}/32", "dev", "lo", check=False)


def withdraw(address):
    """Takes an address of a Service away."""
    ip("addr", "del", f"{address}/32", "dev", "lo", check=False)


class Network:
    """The network of one pod: a namespace with one interface."""

    count = itertools.count(1)

    def __init__(self):
        with LOCK:
            self.address = next(ADDRESSES)
            self.name = f"pod{next(self.count)}"
        ip("netns", "add", self.name)
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self.name, "master", "pods", "up")
        for arguments in (
            ("addr", "add", f"{self.address}/16", "dev", "eth0"),
            ("link", "set", "lo", "up"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", NODE),
        ):
            ip("-n", self.name, *arguments)

    def remove(self):
        """Takes the namespace away; its address answers no more."""
        ip("link", "del", self.name, check=False)
        ip("netns", "del", self.name, check=False)
