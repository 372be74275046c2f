"""Do replicas start or end that should not, while a part of the cluster is away?"""

import csv
import os
import threading
import time

from . import api, keda
from .load import Load
from .scaling import right
from .workload import Workload, render

AWAY = 60
AFTER = 75
SETTLE = 150
PATIENCE = 60

# For how many seconds a demand may lead to a number of replicas: the stabilization window and two polls.
MEMORY = 150

WAKE = [
    {"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": name, "value": value}}
    for name, value in (
        ("INTENTD_SCALER_WAKE_PROMETHEUS", "http://prometheus-operated.monitoring.svc:9090"),
        # A source that is known, and says that there is nothing to do.
        ("INTENTD_SCALER_WAKE_QUERY", "vector(0)"),
    )
]


class Place:
    """A workload, the load that it gets in replicas' worth, and what it is to stay at."""

    def __init__(self, cluster, name, overlay, worth=0.0, patches=()):
        self.name, self.worth = name, worth
        text = render(overlay, f"o-{name}", patches)
        self.workload = Workload(cluster.control, cluster.node, f"o-{name}", text)
        self.load = Load(self.workload.namespace)

    def begin(self):
        """Gives it its load, once texts of this length are known to it."""
        if self.worth:
            self.workload.wait()
            self.load.tell(2)
            time.sleep(30)
            self.load.tell(self.worth * self.workload.share())


def scaler(cluster, namespaces, replicas):
    """Sets how many scalers run."""
    for namespace in namespaces:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/intentd-scaler"
        api.request("PATCH", path, {"spec": {"replicas": replicas}}, api.MERGE)


def without_scaler(cluster, names):
    """Ends the scalers at once, as a node that is lost does, and lets none start."""
    scaler(cluster, names, 0)
    for namespace in names:
        for pod in cluster.node.of(namespace, "intentd-scaler"):
            for container in pod.containers:
                container.kill()


class Record(threading.Thread):
    """Follows how many replicas are asked for and ready, once a second."""

    def __init__(self, places, path):
        super().__init__(daemon=True)
        self.places, self.path = places, path
        self.rows = []
        self.phase = "settle"

    def run(self):
        with open(self.path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                [
                    "time",
                    "phase",
                    *(f"{place.name}_{what}" for place in self.places for what in ("wanted", "ready", "demand")),
                ]
            )
            while True:
                seen = [(*place.workload.counts(), place.workload.demand()) for place in self.places]
                self.rows.append((self.phase, seen))
                writer.writerow([round(time.time(), 1), self.phase, *(number for one in seen for number in one)])
                file.flush()
                time.sleep(1)


def judge(record, places, phase):
    """The numbers of replicas that each place was to have in a phase, as words where they changed. A change is a fault
    unless the demand of the last minutes asks for the new number."""
    faults, shown = [], []
    for index, place in enumerate(places):
        changes, before = [], None
        for moment, (name, seen) in enumerate(record.rows):
            wanted = seen[index][0]
            if name == phase and (not changes or wanted != before):
                changes += [] if changes or before in (None, wanted) else [str(before)]
                changes.append(str(wanted))
                latest = record.rows[max(0, moment - MEMORY) : moment]
                asked = {number for _, row in latest for number in right(row[index][2])}
                if len(changes) > 1 and wanted not in asked:
                    faults.append(f"{phase}: {place.name} went {' → '.join(changes)}")
            before = wanted
        shown.append(" → ".join(changes))
    return faults, shown


def settled(record, places):
    """What is not as it should be before anything is away: without it, no change would say nothing."""
    wanted = {"idle": {1}, "zero": {0}}
    found = []
    for place, (count, ready, demand) in zip(places, record.rows[-1][1] if record.rows else []):
        good = wanted.get(place.name) or {
            number for _, row in record.rows for number in right(row[places.index(place)][2])
        }
        if count not in good or ready != count:
            found.append(f"before: {place.name} has {count} replicas, {ready} of them ready, for a demand of {demand}")
    return found or ([] if record.rows else ["before: nothing was recorded"])


def silent(cluster, record, places, phase):
    """Parts of the test that have ended, or say nothing, and whose silence would pass for calm."""
    found = [name for name, process in cluster.control.processes.items() if process.poll() is not None]
    found += [f"the load of {place.name}" for place in places if place.load.process.poll() is not None]
    if not record.is_alive() or sum(1 for name, _ in record.rows if name == phase) < (AWAY + AFTER) / 3:
        found.append("the record")
    found += [
        f"KEDA's ScaledObject of {place.name}"
        for place in places
        if place.name != "hpa" and not keda.ready(place.workload.namespace)
    ]
    return [f"{phase}: {name} is silent" for name in found]


def run(cluster, results):
    """All outages in turn, with idle and loaded workloads beside each other. Returns what is wrong."""
    minimum = [{"op": "replace", "path": "/spec/minReplicaCount", "value": 0}]
    zero = [("Deployment", "intentd-scaler", WAKE), ("ScaledObject", "intentd", minimum)]
    places = [
        Place(cluster, "idle", "keda-external"),
        Place(cluster, "zero", "keda-external", patches=zero),
        Place(cluster, "busy", "keda-external", worth=2.5),
        Place(cluster, "prometheus", "keda-prometheus", worth=2.5),
        Place(cluster, "hpa", "hpa", worth=2.5),
    ]
    scaled = [place.workload.namespace for place in places[:3]]
    for place in places:
        place.begin()
    record = Record(places, os.path.join(results, "outages.csv"))
    record.start()
    time.sleep(SETTLE)
    faults = settled(record, places)
    patience = time.monotonic() + PATIENCE
    # A replica may just be starting.
    while faults and time.monotonic() < patience:
        time.sleep(2)
        faults = settled(record, places)

    def dns(way):
        cluster.services.dns = way

    outages = [
        ("nothing is away", lambda: None, lambda: None),
        ("DNS fails", lambda: dns("fail"), lambda: dns("answer")),
        ("DNS is silent", lambda: dns("silent"), lambda: dns("answer")),
        ("the scaler", lambda: without_scaler(cluster, scaled), lambda: scaler(cluster, scaled, 1)),
        ("Prometheus", cluster.monitoring.stop, cluster.monitoring.start),
        ("the API server", cluster.control.without_apiserver, cluster.control.with_apiserver),
    ]
    lines = ["| away for 60 s | " + " | ".join(place.name for place in places) + " |", "| --- |" + " --- |" * 5]
    for name, away, back in outages:
        record.phase = name
        away()
        time.sleep(AWAY)
        back()
        time.sleep(AFTER)
        found, shown = judge(record, places, name)
        faults += found + silent(cluster, record, places, name)
        lines.append(f"| {name} | {' | '.join(shown)} |")
        print(lines[-1], flush=True)
    for place in places:
        if place.load.lost():
            faults.append(f"{place.name}: {place.load.lost()} of {place.load.latest['sent']} requests lost")
    lost, sent = sum(place.load.lost() for place in places), sum(place.load.latest["sent"] for place in places)
    lines += ["", f"Requests lost: {lost} of {sent}."]
    with open(os.path.join(results, "outages.md"), "w") as file:
        file.write("\n".join(lines) + "\n")
    return faults
