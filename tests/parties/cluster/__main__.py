"""Brings the cluster up and runs parts: `python3 -m cluster PROGRAMS FOLDER RESULTS PART…` (see run.sh).

PROGRAMS is a file of JSON with the path of each program, and of the module of KEDA, by name.
"""

import json
import os
import sys
import time

from . import article, check_standin, checkpoint, growing, keda, knative, kpa, network, outages, scaling
from .container import Image
from .control import Control
from .ingress import Ingress
from .monitoring import Monitoring
from .node import Node
from .services import Services

WAIT = 300


class Cluster:
    """All that runs, for as long as this process does."""

    def __init__(self, programs, folder):
        self.programs = programs
        self.parties = set()
        network.prepare()
        self.control = Control(programs, folder)
        self.services = Services()
        slow = os.path.join(folder, "slow")
        checkpoint.write(slow, layers=2, hidden=512)
        intentd = Image({"/opt/intentd/bin/intentd": programs["intentd"], "/models/slow": slow}, ["intentd"])
        intentd.env["PATH"] = "/opt/intentd/bin:/usr/local/bin:/usr/bin:/bin"
        images = {"intentd:latest": intentd}
        images.update(keda.images(programs), **knative.images(programs))
        self.node = Node(images, os.path.join(folder, "pods"), self.control.logs)
        self.monitoring = Monitoring(self.control, self.node, programs["prometheus"])

    def need(self, party):
        """Installs a party, once."""
        if party in self.parties:
            return
        self.parties.add(party)
        if party == "keda":
            keda.install(self.control, self.programs["keda-module"], WAIT)
        else:
            knative.install(self.control, self.programs["knative-modules"], WAIT)
            self.ingress = Ingress(self.services)
        print(f"{time.strftime('%T')} {party} is up", flush=True)


# What each part needs, and what runs it.
PARTS = {
    "standin": ((), check_standin.run),
    "scaling": (("keda",), scaling.run),
    "outages": (("keda",), outages.run),
    "growing": (("keda",), growing.run),
    "knative": (("knative",), kpa.run),
    "article": (("knative", "keda"), article.run),
}


def main(programs, folder, results, *parts):
    """Runs the parts in turn; exits with 1 if anything is wrong."""
    with open(programs) as file:
        cluster = Cluster(json.load(file), folder)
    print(f"{time.strftime('%T')} the control plane is up", flush=True)
    faults = []
    for part in parts:
        name, _, chosen = part.partition("=")
        if name not in PARTS:
            raise SystemExit(f"there is no part {name}; there are {', '.join(PARTS)}")
        needs, run = PARTS[name]
        for party in needs:
            cluster.need(party)
        found = run(cluster, results, *([chosen.split(",")] if chosen else []))
        print(f"{time.strftime('%T')} {part}: {'; '.join(found) or 'right'}", flush=True)
        faults += found
    sys.exit(1 if faults else 0)


main(*sys.argv[1:])
