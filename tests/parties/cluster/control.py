"""The control plane: etcd, kube-apiserver and kube-controller-manager as processes."""

import json
import os
import subprocess
import time

from . import api, network

ETCD = f"http://{network.NODE}:2379"
START = 180

# What watches machines has nothing to watch: the stand-in's node is always there.
CONTROLLERS = "*,-node-lifecycle-controller,-taint-eviction-controller,-node-ipam-controller,-ttl-controller"


def openssl(*arguments):
    """Runs openssl."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Keys:
    """An authority, and what it signs, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self.authority("ca")
        self.authority("front-ca")
        self.signed("apiserver", "ca", "kube-apiserver", f"DNS:kubernetes.default.svc,IP:{network.NODE},IP:10.96.0.1")
        self.signed("front-proxy", "front-ca", "front-proxy-client")
        openssl("genrsa", "-out", self["account.key"], "2048")
        openssl("rsa", "-in", self["account.key"], "-pubout", "-out", self["account.pub"])

    def __getitem__(self, name):
        return os.path.join(self.folder, name)

    def authority(self, name):
        """A certificate that signs others."""
        arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3", "-subj", f"/CN={name}"]
        openssl(*arguments, "-keyout", self[f"{name}.key"], "-out", self[f"{name}.crt"])

    def signed(self, name, authority, subject, names="DNS:unused"):
        """A key and its certificate."""
        request, extra = self[f"{name}.csr"], self[f"{name}.ext"]
        openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            f"/CN={subject}",
            "-keyout",
            self[f"{name}.key"],
            "-out",
            request,
        )
        with open(extra, "w") as file:
            file.write(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
        signer = ["-CA", self[f"{authority}.crt"], "-CAkey", self[f"{authority}.key"], "-CAcreateserial"]
        openssl("x509", "-req", "-in", request, *signer, "-days", "3", "-extfile", extra, "-out", self[f"{name}.crt"])


class Control:
    """Starts the control plane; `programs` has the paths of its three."""

    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder
        self.logs = os.path.join(folder, "logs")
        os.makedirs(self.logs, exist_ok=True)
        self.keys = Keys(os.path.join(folder, "keys"))
        self.processes = {}
        self.kubeconfig = os.path.join(folder, "kubeconfig")
        self._write()
        self.start("etcd", *self._etcd())
        self.start("kube-apiserver", *self._apiserver())
        self.wait()
        self.start("kube-controller-manager", *self._manager())

    def start(self, name, *line, env=None):
        """Starts a process; its log has its name."""
        with open(os.path.join(self.logs, f"{name}.log"), "ab") as log:
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        self.processes[name] = process
        return process

    def stop(self, name):
        """Kills a process."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def without_apiserver(self):
        """Takes the API server away."""
        self.stop("kube-apiserver")

    def with_apiserver(self):
        """Brings it back."""
        self.start("kube-apiserver", *self._apiserver())
        self.wait()

    def wait(self):
        """Returns when the API server is ready."""
        end = time.monotonic() + START
        while True:
            try:
                api.request("GET", "/readyz")
                return
            except (OSError, api.ApiError) as error:
                if time.monotonic() > end:
                    raise SystemExit(f"the API server does not start: {error}; see {self.logs}") from error
                time.sleep(0.5)

    def _write(self):
        server = {"server": f"https://{network.NODE}:{api.ADDRESS[1]}", "certificate-authority": self.keys["ca.crt"]}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": server}],
            "users": [{"name": "test", "user": {"token": api.TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        with open(self.kubeconfig, "w") as file:
            json.dump(config, file)
        with open(self.keys["tokens.csv"], "w") as file:
            file.write(f'{api.TOKEN},admin,admin,"system:masters"\n')

    def _etcd(self):
        peer = f"http://{network.NODE}:2380"
        return [
            self.programs["etcd"],
            "--data-dir",
            os.path.join(self.folder, "etcd"),
            "--unsafe-no-fsync",
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            f"default={peer}",
            "--log-level",
            "warn",
        ]

    def _apiserver(self):
        keys = self.keys
        flags = {
            "etcd-servers": ETCD,
            "bind-address": network.NODE,
            "advertise-address": network.NODE,
            "secure-port": api.ADDRESS[1],
            "tls-cert-file": keys["apiserver.crt"],
            "tls-private-key-file": keys["apiserver.key"],
            "client-ca-file": keys["ca.crt"],
            "token-auth-file": keys["tokens.csv"],
            "authorization-mode": "RBAC",
            "service-cluster-ip-range": network.SERVICES,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": keys["account.pub"],
            "service-account-signing-key-file": keys["account.key"],
            "requestheader-client-ca-file": keys["front-ca.crt"],
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
            "proxy-client-cert-file": keys["front-proxy.crt"],
            "proxy-client-key-file": keys["front-proxy.key"],
            # Services of the cluster are reached by their endpoints: the server is not behind the stand-in's proxy.
            "enable-aggregator-routing": "true",
        }
        return [self.programs["kube-apiserver"], *(f"--{flag}={value}" for flag, value in flags.items())]

    def _manager(self):
        flags = {
            "kubeconfig": self.kubeconfig,
            "authentication-kubeconfig": self.kubeconfig,
            "authorization-kubeconfig": self.kubeconfig,
            "service-account-private-key-file": self.keys["account.key"],
            "root-ca-file": self.keys["ca.crt"],
            "bind-address": "127.0.0.1",
            "controllers": CONTROLLERS,
            "leader-elect": "false",
            "use-service-account-credentials": "true",
        }
        return [self.programs["kube-controller-manager"], *(f"--{flag}={value}" for flag, value in flags.items())]

    def kubectl(self, *arguments, text=None):
        """Runs kubectl and returns what it prints; what it complains of ends the test."""
        line = ["kubectl", "--kubeconfig", self.kubeconfig, *arguments]
        done = subprocess.run(line, input=text, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(line)}: {done.stderr}")
        return done.stdout

    def apply(self, text):
        """Applies manifests strictly: unknown and repeated fields are errors."""
        return self.kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-", text=text)
