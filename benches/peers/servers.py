"""The servers that serve.py compares: how each is started, asked, awaited and ended."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request

from common import HERE, ROOT

TARGETS = HERE / "targets"
START_SECONDS, STOP_SECONDS = 180, 10


def commands(flags):
    """Each server's command line; the port is the one in its file in targets/."""

    def ort(dtype, port, *more):
        program = [sys.executable, HERE / "serve_ort.py", "--onnx", flags.onnx / f"{dtype}.onnx"]
        return [*program, "--tokenizer", flags.model, "--threads", flags.threads, "--port", port, *more, *shlex.split(flags.ort_flags)]

    batching = ("--max-batch", 32, "--batch-wait-ms", flags.batch_wait_ms)
    intentd = [flags.intentd, "--model", flags.model, "--threads", flags.threads, "--host", "127.0.0.1"]
    intentd += ["--port", 8100, "--admin-port", "off", "--log", "warn", "--dtype"]
    litserve = [sys.executable, HERE / "serve_torch.py", "--model", flags.model, "--threads", flags.threads]
    tei = [flags.tei, "--model-id", flags.model, "--hostname", "127.0.0.1", "--port", 8106, "--prometheus-port", 9106]
    triton = [flags.triton, "--model-repository", flags.triton_repository, "--http-port", 8107]
    return {
        "intentd": [*intentd, "f32"],
        "intentd-int8": [*intentd, "int8"],
        "ort-fp32": ort("fp32", 8101),
        "ort-int8": ort("int8", 8102),
        "ort-fp32-batching": ort("fp32", 8108, *batching),
        "ort-int8-batching": ort("int8", 8109, *batching),
        "litserve": [*litserve, "--port", 8103, "--batch-wait-ms", flags.batch_wait_ms],
        "infinity": [HERE / "serve_infinity.sh", flags.model, 8104, "torch"],
        "infinity-optimum": [HERE / "serve_infinity.sh", flags.onnx / "plain", 8105, "optimum"],
        "tei": tei,
        "triton": [*triton, "--allow-grpc", "false", "--allow-metrics", "false"],
    }


def target_file(name):
    return TARGETS / ("intentd.toml" if name.startswith("intentd") else f"{name}.toml")


class Server:
    """A server in a process group of its own, so that its children end with it."""

    def __init__(self, name, command, flags):
        self.name = name
        self.target = tomllib.loads(target_file(name).read_text())
        command = [str(part) for part in command]
        if flags.server_cores:
            command = ["taskset", "--cpu-list", flags.server_cores, *command]
        environment = os.environ | {"THREADS": str(flags.threads), "HF_HUB_OFFLINE": "1"}
        self.log = (flags.out / f"{name}.log").open("w")
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def ask(self, text):
        """The label of a text."""
        forms = {"{query}": urllib.parse.quote(text, safe=""), "{json}": json.dumps(text), "{text}": text}

        def filled(template):
            for form, value in forms.items():
                template = template.replace(form, value)
            return template

        body = filled(self.target["body"]).encode() if "body" in self.target else None
        method = self.target.get("method", "POST" if body else "GET")
        request = urllib.request.Request(filled(self.target["url"]), body, self.target.get("headers", {}), method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return label_in(json.load(response), self.target.get("label"))

    def wait(self):
        """Until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended with exit code {self.process.returncode}; see {self.log.name}")
            try:
                return self.ask("play some jazz")
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise SystemExit(f"{self.name} does not answer after {START_SECONDS} s; see {self.log.name}")

    def close(self):
        """Ends the whole group: some servers leave workers behind when only their main process is told."""
        for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline and group_lives(self.process):
                time.sleep(0.05)
        self.process.wait()
        self.log.close()


def group_lives(process):
    process.poll()  # Its main process would stay in the group as a zombie.
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def label_in(answer, pointer):
    """The label in a server's answer: where its target file says, or the first one that is called so."""
    if pointer:
        for step in pointer.strip("/").split("/"):
            answer = answer[int(step) if isinstance(answer, list) else step]
        return answer
    if isinstance(answer, dict):
        if isinstance(answer.get("label"), str):
            return answer["label"]
        answer = list(answer.values())
    if isinstance(answer, list):
        return next((label for label in (label_in(item, None) for item in answer) if label), None)
    return None
