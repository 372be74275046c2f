"""What the program itself says of its flags, variables and ports."""

import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field


@dataclass
class Command:
    """A sub-command by its `--help`."""

    name: str
    # Of each flag: its environment variable, its default, its help.
    variables: dict = field(default_factory=dict)
    defaults: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)

    @classmethod
    def of(cls, program: str, name: str):
        """The sub-command, or None where the program has no such one."""
        done = subprocess.run([program, name, "--help"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return None
        command = cls(name)
        for block in re.split(r"\n(?= +(?:-\w, )?--[a-z])", done.stdout)[1:]:
            flag = re.search(r"--([a-z0-9-]+)", block)[1]
            command.words[flag] = " ".join(block.split())
            if variable := re.search(r"\[env: ([A-Z0-9_]+)", block):
                command.variables[variable[1]] = flag
            if default := re.search(r"\[default: ([^\]]+)\]", command.words[flag]):
                command.defaults[flag] = default[1]
        return command


def settings_are_taken(program: str, environment: dict):
    """What `intentd serve` says of wrong settings, or None."""
    done = subprocess.run(
        [program, "serve", "--print-config"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def statuses(program: str, paths: dict) -> dict:
    """The status of each path of each port ("main", "admin") of a server that is started for it."""
    ports = {"main": free_port(), "admin": free_port()}
    command = [program, "serve", "--host", "127.0.0.1", "--threads", "1", "--lame-duck", "0", "--device", "cpu"]
    command += ["--port", str(ports["main"]), "--admin-port", str(ports["admin"]), "--log", "error"]
    server = subprocess.Popen(command, env={"PATH": os.environ["PATH"]})

    def status(port: str, path: str):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[port]}{path}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    try:
        for _ in range(300):
            if status("admin", "/readyz") == 200 or server.poll() is not None:
                break
            time.sleep(0.1)
        return {(port, path): status(port, path) for port in paths for path in sorted(paths[port])}
    finally:
        server.terminate()
        server.wait()
