"""One container of a pod: a process with the root, user, capabilities, probes and end that its spec asks for."""

import dataclasses
import datetime
import http.client
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

from . import volumes

KNOWN = {
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "env",
    "envFrom",
    "ports",
    "resources",
    "volumeMounts",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
}

# A root of its own for the container: what is written stays in it, and a read-only one truly is.
ENTER = r"""
set -e
root=$1 files=$2 mounts=$3 read_only=$4
shift 4
mount -t tmpfs -o mode=755 root "$root"
for folder in usr bin sbin lib lib64; do
    if [ -L "/$folder" ]; then
        cp -d "/$folder" "$root/$folder"
    elif [ -d "/$folder" ]; then
        mkdir "$root/$folder"
        mount --bind "/$folder" "$root/$folder"
    fi
done
mkdir -p "$root/proc" "$root/dev" "$root/sys" "$root/etc/ssl" "$root/tmp"
chmod 1777 "$root/tmp"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount --bind /etc/ssl "$root/etc/ssl"
for file in ld.so.cache passwd group nsswitch.conf hosts; do
    cp "/etc/$file" "$root/etc/"
done
cp "$files/resolv.conf" "$root/etc/"
while read -r from to; do
    mkdir -p "$(dirname "$root$to")"
    if [ -d "$from" ]; then mkdir -p "$root$to"; else touch "$root$to"; fi
    mount --bind "$from" "$root$to"
done < "$mounts"
if [ "$read_only" = True ]; then
    mount -o remount,ro "$root"
fi
exec /usr/sbin/chroot "$root" "$@"
"""


@dataclasses.dataclass
class Image:
    """What stands for an image: programs of this machine by their paths in it."""

    files: dict
    command: list
    user: int = 65532
    env: dict = dataclasses.field(default_factory=dict)


def now():
    """The time as Kubernetes writes it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Container:
    """Runs until its pod ends, and starts again whenever the process does."""

    def __init__(self, pod, spec, image, log):
        unknown = set(spec) - KNOWN
        if unknown:
            raise ValueError(f"of a container's spec, {sorted(unknown)} are not known here")
        self.pod, self.spec, self.image, self.log = pod, spec, image, log
        self.process = None
        self.restarts = 0
        self.ready = self.started = False
        self.state = {"waiting": {"reason": "ContainerCreating"}}
        self.last = {}
        self.stopping = threading.Event()
        self.began = 0.0

    def status(self):
        """Its entry in the pod's status."""
        return {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": "local",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
            "containerID": f"process://{self.process.pid if self.process else 0}",
        }

    def run(self):
        """Starts the process and keeps it; for a thread of its own."""
        pause = 0
        while not self.stopping.is_set():
            try:
                self._start()
            except volumes.Waiting as reason:
                self._show({"waiting": {"reason": "CreateContainerConfigError", "message": str(reason)}})
                self.stopping.wait(1)
                continue
            self._watch()
            if self.stopping.is_set():
                return
            self._ended()
            # As a kubelet: at once, then after 10 s, twice as long each time.
            if self.stopping.wait(pause):
                return
            pause = min(300, pause * 2 or 10)
            self.restarts += 1

    def _show(self, state):
        if state != self.state:
            self.state = state
            self.pod.report()

    def _ended(self):
        code = self.process.returncode
        code = code if code >= 0 else 128 - code
        self.ready = self.started = False
        reason = "Completed" if code == 0 else "Error"
        self.last = {"terminated": {"exitCode": code, "reason": reason, "startedAt": now(), "finishedAt": now()}}
        self.pod.note(f"{self.spec['name']} ended with {code}")
        self._show(dict(self.last))

    def _line(self, environment):
        spec, context = self.spec, {**self.pod.spec.get("securityContext", {}), **self.spec.get("securityContext", {})}
        user = context.get("runAsUser", self.image.user)
        if context.get("runAsNonRoot") and user == 0:
            raise volumes.Waiting("the container must not run as root")
        group = context.get("runAsGroup", user)
        line = spec.get("command") or self.image.command
        arguments = spec.get("args") or []
        for name, value in environment.items():
            arguments = [argument.replace(f"$({name})", value) for argument in arguments]
        extra = context.get("fsGroup")
        rights = ["setpriv", "--reuid", str(user), "--regid", str(group), "--groups", f"{group},{extra or group}"]
        if context.get("allowPrivilegeEscalation") is False:
            rights.append("--no-new-privs")
        if "ALL" in context.get("capabilities", {}).get("drop", []):
            rights += ["--inh-caps=-all", "--bounding-set=-all"]
        return [*rights, *line, *arguments], context.get("readOnlyRootFilesystem", False)

    def _start(self):
        pod, name = self.pod, self.spec["name"]
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", **self.image.env}
        environment.update(volumes.environment(pod, self.spec))
        line, read_only = self._line(environment)
        folder = os.path.join(pod.folder, name)
        os.makedirs(os.path.join(folder, "root"), exist_ok=True)
        mounts = [(source, path) for path, source in self.image.files.items()]
        mounts += [(pod.volumes[mount["name"]], mount["mountPath"]) for mount in self.spec.get("volumeMounts", [])]
        with open(os.path.join(folder, "mounts"), "w") as file:
            file.writelines(f"{source} {path}\n" for source, path in mounts)
        enter = ["sh", "-c", ENTER, "enter", os.path.join(folder, "root"), pod.folder, os.path.join(folder, "mounts")]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", pod.network.name, "unshare", "--mount", *enter, str(read_only), *line],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.began = time.monotonic()
        self.started = self.ready = False
        self._show({"running": {"startedAt": now()}})

    def _watch(self):
        """Probes the process until it ends or is to stop."""
        probes = {kind: Probe(self, self.spec.get(f"{kind}Probe")) for kind in ("startup", "liveness", "readiness")}
        while not self.stopping.wait(0.1):
            if self.process.poll() is not None:
                return
            before = self.started, self.ready
            if not self.started:
                self.started = probes["startup"].due() is True
            if self.started:
                ready = probes["readiness"].due()
                self.ready = self.ready if ready is None else ready
            failed = probes["liveness" if self.started else "startup"].failed
            if self.started:
                failed = probes["liveness"].due() is False
            if failed:
                self.pod.note(f"{self.spec['name']} is stopped, since a probe failed")
                self.end(self.pod.spec.get("terminationGracePeriodSeconds", 30))
                return
            if before != (self.started, self.ready):
                self.pod.note(f"{self.spec['name']} started={self.started} ready={self.ready}")
                self.pod.report()

    def port(self, name):
        """The number of a port that a probe or hook names."""
        if isinstance(name, int):
            return name
        return next(port["containerPort"] for port in self.spec.get("ports", []) if port.get("name") == name)

    def end(self, grace):
        """Runs the preStop hook, sends SIGTERM, and SIGKILL when the grace is over."""
        began = time.monotonic()
        if self.process is None:
            return
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook and self.process.poll() is None:
            if "sleep" in hook:
                time.sleep(min(hook["sleep"]["seconds"], grace))
            else:
                ask(self, hook["httpGet"], grace)
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(max(2, grace - (time.monotonic() - began)))
            except subprocess.TimeoutExpired:
                self.pod.note(f"{self.spec['name']} is killed after its grace")
                self.kill()
        self.pod.note(
            f"{self.spec['name']} ended with {self.process.returncode} after {time.monotonic() - began:.1f} s"
        )

    def kill(self):
        """Ends the process as a crash does."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def ask(container, http_get, timeout):
    """The status of a GET that a probe or hook asks for, or None without an answer."""
    secure = http_get.get("scheme") == "HTTPS"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    extra = {"context": ssl._create_unverified_context()} if secure else {}
    # Queue-proxy tells a kubelet's probe by its agent.
    headers = {"User-Agent": "kube-probe/1.35", "Accept": "*/*", "Connection": "close"}
    headers.update({header["name"]: header["value"] for header in http_get.get("httpHeaders") or []})
    connection = kind(container.pod.network.address, container.port(http_get["port"]), timeout=timeout, **extra)
    try:
        connection.request("GET", http_get.get("path", "/"), None, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Probe:
    """One probe: None from `due` while it says nothing new, True or False when it has passed or failed."""

    def __init__(self, container, spec):
        self.container, self.spec = container, spec
        self.failures = self.successes = 0
        self.failed = False
        self.next = time.monotonic() + (spec or {}).get("initialDelaySeconds", 0)

    def due(self):
        """Asks when it is time to."""
        if self.spec is None:
            return True
        if time.monotonic() < self.next:
            return None
        self.next = time.monotonic() + self.spec.get("periodSeconds", 10)
        if self._passes():
            self.failures, self.successes = 0, self.successes + 1
            return True if self.successes >= self.spec.get("successThreshold", 1) else None
        self.successes, self.failures = 0, self.failures + 1
        self.failed = self.failures >= self.spec.get("failureThreshold", 3)
        return False if self.failed else None

    def _passes(self):
        timeout = self.spec.get("timeoutSeconds", 1)
        if "httpGet" in self.spec:
            status = ask(self.container, self.spec["httpGet"], timeout)
            return status is not None and 200 <= status < 400
        port = self.container.port(self.spec["tcpSocket"]["port"])
        try:
            socket.create_connection((self.container.pod.network.address, port), timeout).close()
        except OSError:
            return False
        return True
