"""Does a workload follow a growing load while a scaler is away: the only one, and one of two?"""

import csv
import os
import time

from .outages import AWAY, Place, scaler, without_scaler
from .scaling import right

BEFORE, AFTER = 1.5, 4.5
SETTLE = 90
FOLLOW = 120


def end_one(node, namespace):
    """Ends one of several scalers as a node that is lost does, again and again while it is away. Returns its pod."""
    pod = node.of(namespace, "intentd-scaler")[0]
    for container in pod.containers:
        container.kill()
    return pod


def watch(places, phase, seconds, rows, each=lambda: None):
    """Notes what each place has and needs, once a second."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        each()
        for place in places:
            rows.append((phase, round(passed, 1), place.name, *place.workload.counts(), place.workload.demand()))
        time.sleep(1)


def reached(rows, name, phase):
    """The seconds of a phase after which there are always as many replicas as the demand of the moment needs; None if there
    are too few at its end. Later there may be more, since the HPA takes none away for five minutes."""
    mine = [row for row in rows if row[2] == name and row[0] == phase]
    few = [row[1] for row in mine if row[3] < min(right(row[5]), default=0)]
    if not few:
        return 0.0
    return next((row[1] for row in mine if row[1] > few[-1]), None)


def run(cluster, results):
    """Trebles the load when the scaler has just gone. Returns what is wrong."""
    places = [Place(cluster, "one", "keda-external", BEFORE), Place(cluster, "two", "keda-external", BEFORE)]
    one, two = (place.workload.namespace for place in places)
    scaler(cluster, [two], 2)
    for place in places:
        place.begin()
    rows = []
    watch(places, "before", SETTLE, rows)
    shares = [place.workload.share() for place in places]
    before = [place.workload.counts()[0] for place in places]
    without_scaler(cluster, [one])
    end_one(cluster.node, two)
    for place, share in zip(places, shares):
        place.load.tell(AFTER * share)
    watch(places, "away", AWAY, rows, lambda: end_one(cluster.node, two))
    during = [place.workload.counts()[0] for place in places]
    scaler(cluster, [one], 1)
    watch(places, "back", FOLLOW, rows)
    with open(os.path.join(results, "growing.csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["phase", "seconds", "place", "wanted", "ready", "demand"])
        writer.writerows(rows)
    lines = [
        "| scalers | replicas before | after 60 s with one scaler away | enough after the step | enough after its return |",
        "| --- | --- | --- | --- | --- |",
    ]
    faults = []
    for place, count, grown in zip(places, before, during):
        away, back = (reached(rows, place.name, phase) for phase in ("away", "back"))
        shown = ["–" if seconds is None else f"{seconds:.0f} s" for seconds in (away, back)]
        if away is not None:
            # The demand goes on to vary, which says nothing about the scaler.
            shown[1] = "–"
        lines.append(f"| {place.name} | {count} | {grown} | {shown[0]} | {shown[1]} |")
        lost = place.load.lost()
        faults += [f"{place.name}: {lost} requests lost"] if lost else []
        if back is None:
            faults.append(f"{place.name}: never enough replicas after the scaler's return")
        place.load.tell(0)
    if during[0] != before[0]:
        faults.append(f"one: from {before[0]} to {during[0]} replicas without a scaler, so it was not away")
    if during[1] <= before[1] or reached(rows, "two", "away") is None:
        faults.append(f"two: from {before[1]} to {during[1]} replicas, so the other scaler did not follow the load")
    with open(os.path.join(results, "growing.md"), "w") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)
    return faults
