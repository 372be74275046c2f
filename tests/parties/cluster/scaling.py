"""What each scaler makes of the demand: 2.8 and 6.4 replicas' worth, an eightfold step, and back."""

import csv
import json
import os
import statistics
import threading
import time

from .load import Load
from .workload import Workload, render

# Trigger to overlay.
TRIGGERS = {
    "external": "keda-external",
    "external-tls": "keda-external-tls",
    "metrics-api": "keda-metrics-api",
    "prometheus": "keda-prometheus",
    "hpa": "hpa",
}

# As the HPA: within a tenth of its target it leaves the number as it is.
TOLERANCE = 0.1

# Each phase: its name, replicas' worth of load, its length in seconds, whether it ends as soon as one replica is left.
PHASES = [
    ("start", 0.8, 60, False),
    ("2.8", 2.8, 120, False),
    ("down", 0.8, 480, True),
    ("6.4", 6.4, 150, False),
    ("end", 0.0, 480, True),
]


def right(demand):
    """The numbers of replicas that are right for a demand: what a scaler with the target 1 may rest at."""
    return {count for count in range(1, 100) if -(-demand // 1) == count or abs(demand / count - 1) <= TOLERANCE}


class Run(threading.Thread):
    """One trigger, from one replica through all phases."""

    def __init__(self, workload, trigger, results, load, knows_demand=True):
        super().__init__(name=trigger, daemon=True)
        # Whether the scaler knows the demand that the replicas publish, or only the requests.
        self.knows_demand = knows_demand
        self.workload, self.trigger, self.results, self.load = workload, trigger, results, load
        self.rows = []
        self.summary = {"trigger": trigger}
        self.failure = None

    def run(self):
        try:
            self.workload.wait()
            # Until texts of this length are known, the capacity is that of short ones.
            self.load.tell(2)
            self._sample("learn", 40, False)
            for name, worth, seconds, to_one in PHASES:
                share = self.workload.share()
                self.load.tell(worth * share)
                began = len(self.rows)
                self._sample(name, seconds, to_one)
                self.summary[name] = self._judge(self.rows[began:], worth, to_one)
            self.load.tell(0)
            self.summary["lost"], self.summary["refused"] = self.load.lost(), self.load.refused()
            self.summary["sent"] = self.load.latest["sent"]
            self.summary["answers"] = self.load.latest
        except BaseException as error:
            self.failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._write()

    def _sample(self, phase, seconds, to_one):
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            wanted, ready = self.workload.counts()
            demand = self.workload.demand()
            latest = self.load.latest
            row = {
                "time": round(time.time(), 1),
                "phase": phase,
                "seconds": round(passed, 1),
                "wanted": wanted,
                "ready": ready,
            }
            row.update(demand=demand, sent=latest["sent"], refused=self.load.refused(), lost=self.load.lost())
            self.rows.append(row)
            if to_one and wanted == 1 and ready == 1:
                return
            time.sleep(1)

    def _judge(self, rows, worth, to_one):
        if to_one:
            reached = rows[-1]["wanted"] == 1
            return {
                "to_one_s": rows[-1]["seconds"] if reached else None,
                "demand": statistics.median(r["demand"] for r in rows[-20:]),
            }
        demand = statistics.median(row["demand"] for row in rows[-30:])
        good = right(demand if self.knows_demand else worth)
        first = next((row for row in rows if row["wanted"] in good), None)
        ready = next((row for row in rows if row["ready"] in good), None)
        after = [row["wanted"] for row in rows if first and row["seconds"] >= first["seconds"]]
        return {
            "demand": demand,
            "right": sorted(good),
            "wanted_s": first and first["seconds"],
            "ready_s": ready and ready["seconds"],
            "most": max(row["wanted"] for row in rows),
            "last": rows[-1]["wanted"],
            "changes_after": sum(1 for before, now in zip(after, after[1:]) if before != now),
        }

    def _write(self):
        with open(os.path.join(self.results, f"scaling-{self.trigger}.csv"), "w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]) if self.rows else ["time"])
            writer.writeheader()
            writer.writerows(self.rows)

    def faults(self):
        """What is wrong with the run, in words."""
        found = [self.failure] if self.failure else []
        for name, worth, _, to_one in PHASES if not self.failure else ():
            phase = self.summary[name]
            if to_one:
                if phase["to_one_s"] is None:
                    found.append(f"{name}: not back at one replica")
                continue
            if phase["wanted_s"] is None or phase["last"] not in phase["right"]:
                found.append(f"{name}: {phase['last']} replicas, where {phase['right']} are right")
            if phase["ready_s"] is None:
                found.append(f"{name}: never so many ready")
            if abs(phase["demand"] / worth - 1) > 0.25:
                found.append(f"{name}: a demand of {phase['demand']} for {worth}")
            if phase["most"] > max(phase["right"], default=0) + 1:
                found.append(f"{name}: {phase['most']} replicas at most, where {phase['right']} are right")
        if self.summary.get("lost"):
            found.append(f"{self.summary['lost']} requests lost")
        return found


def table(summaries):
    """The runs as a table in Markdown."""
    head = (
        "trigger",
        "2.8: right after",
        "most",
        "6.4: right after",
        "most",
        "back at one after",
        "sent",
        "refused",
        "lost",
    )
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for run in summaries:
        if "end" not in run:
            continue
        cells = [run["trigger"]]
        for name in ("2.8", "6.4"):
            phase = run[name]
            after = "–" if phase["wanted_s"] is None else f"{phase['wanted_s']} s"
            cells += [f"{after} ({phase['last']} for {phase['demand']:.2f})", str(phase["most"])]
        cells += [
            f"{run['down']['to_one_s']} s, {run['end']['to_one_s']} s",
            str(run["sent"]),
            str(run["refused"]),
            str(run["lost"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run(cluster, results, triggers=tuple(TRIGGERS)):
    """Runs all triggers side by side, each in a namespace of its own. Returns what is wrong."""
    runs = []
    for trigger in triggers:
        namespace = f"t-{trigger}"
        workload = Workload(cluster.control, cluster.node, namespace, render(TRIGGERS[trigger], namespace))
        runs.append(Run(workload, trigger, results, Load(namespace)))
    return finish(runs, results, "scaling")


def finish(runs, results, name):
    """Runs them side by side and writes the table. Returns what is wrong."""
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    summaries = [each.summary for each in runs]
    with open(os.path.join(results, f"{name}.json"), "w") as file:
        json.dump(summaries, file, indent=1)
    with open(os.path.join(results, f"{name}.md"), "w") as file:
        file.write(table(summaries))
    return [f"{each.trigger}: {fault}" for each in runs for fault in each.faults()]
