"""Processes that end with this one, whatever ends it."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path


class Process:
    """A program that is started, hurt and started again."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.child: subprocess.Popen | None = None
        self.starts = 0

    @property
    def log(self) -> Path:
        """The output since the last start."""
        return self.folder / f"{self.name}-{self.starts}.log"

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        self.starts += 1
        # The kernel kills the child when this process ends, even by kill -9. Only the main thread may start children:
        # the signal comes when the thread ends that started them.
        line = ["setpriv", "--pdeathsig", "KILL", *self.command()]
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env={**os.environ, "NO_COLOR": "1"})

    def check_alive(self) -> None:
        code = self.child.poll()
        if code is not None:
            raise RuntimeError(f"{self.name} has ended by itself with {code}: {self.log}")

    def signal(self, number: int) -> None:
        self.check_alive()
        self.child.send_signal(number)

    def kill(self) -> None:
        """kill -9. Fails if that is not what ended the process."""
        self.signal(signal.SIGKILL)
        code = self.child.wait(30)
        if code != -signal.SIGKILL:
            raise RuntimeError(f"{self.name} ended with {code}, not by kill -9")

    def terminate(self, limit: float) -> None:
        """SIGTERM. Fails unless the process ends with 0 within `limit` seconds."""
        self.signal(signal.SIGTERM)
        try:
            code = self.child.wait(limit)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"a hang: {self.name} has not ended {limit:.0f} s after SIGTERM: {self.log}") from None
        if code != 0:
            raise RuntimeError(f"{self.name} ended with {code} after SIGTERM: {self.log}")

    def stop_for(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after some time."""
        self.signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.signal(signal.SIGCONT)

    def clean_up(self) -> None:
        if self.child and self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now, below those that the kernel gives to outgoing connections. While a broker is down, its
    clients try to connect all the time. A client that got the broker's own port would be connected to itself, and the
    broker could not start again."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    port = first - 1 - (os.getpid() * 37) % 10_000
    while len(ports) < count:
        port -= 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
    return ports
