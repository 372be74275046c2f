"""Puts load on two replicas and asks Prometheus what it has of them. Run by prometheus.sh.

Fails where promtool has anything to say about a metric of ours, where a family of /metrics did not
arrive, where types differ, where a recording rule or an alert does not evaluate, where the dashboard asks
for what there is not, or where docs/metrics.md lists other metrics than there are.
"""

import json
import math
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

LIMIT_SECONDS = 60
LOAD_SECONDS = 8
# Triton's names are Triton's; promtool may dislike these and no others.
FOREIGN = "nv_inference_"

promtool = sys.argv[1]
api, *ports = map(int, sys.argv[2:])
mains, admins = ports[:2], ports[2:]


def check(is_so, what):
    if not is_so:
        sys.exit(f"FAILED: {what}")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def ask(path, **parameters):
    query = urllib.parse.urlencode(parameters)
    answer = json.loads(get(f"http://127.0.0.1:{api}/api/v1/{path}?{query}"))
    check(answer["status"] == "success", answer)
    check(not answer.get("warnings"), answer.get("warnings"))
    return answer["data"]


def query(expression):
    """The samples of an instant query: labels and value."""
    result = ask("query", query=expression)["result"]
    return [(sample["metric"], float(sample["value"][1])) for sample in result]


def until(what, condition):
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            found = condition()
        except (urllib.error.URLError, ConnectionError):
            found = None
        if found:
            return found
        check(time.monotonic() < deadline, f"it never came: {what}")
        time.sleep(0.25)


def predict(port, body, type_="application/json", seen=None):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", data=body, headers={"Content-Type": type_}
    )
    try:
        status = urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        status = error.code
    if seen is not None:
        seen[status] = seen.get(status, 0) + 1
    return status


def load(seen):
    """Some requests a second to each, wrong ones, and more than one at a time for the second."""
    long = json.dumps({"query": ["play some music by the radio " * 60] * 64}).encode()
    short = json.dumps({"query": "book a table for two"}).encode()
    end = time.monotonic() + LOAD_SECONDS

    def follow(port, body, pause):
        mine = {}
        while time.monotonic() < end:
            predict(port, body, seen=mine)
            time.sleep(pause)
        seen.append((port, mine))

    jobs = [(mains[0], short, 0.02), (mains[0], b"{", 0.5)]
    jobs += [(mains[1], long, 0.2), (mains[1], long, 0.17), (mains[1], short, 0.02)]
    threads = [threading.Thread(target=follow, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def families(text):
    """Type by family, as /metrics declares them."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))


def lint(name, text):
    """promtool's words on an exposition that are about names of ours."""
    found = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)
    words = [line for line in (found.stdout + found.stderr).splitlines() if line.strip()]
    ours = [line for line in words if not line.startswith(FOREIGN)]
    foreign = len(words) - len(ours)
    print(f"promtool check metrics, {name}: exit code {found.returncode}, {len(ours)} about ours, "
          f"{foreign} about {FOREIGN}*")
    check(not ours, "\n".join(ours))
    # 3 is what it says for names that it dislikes.
    check(found.returncode == (3 if foreign else 0), f"exit code {found.returncode}")


def documented(found):
    """docs/metrics.md lists each family with its type, and no other."""
    rows = re.findall(r"^\| `([a-z0-9_]+)(?:\{[\w,]+\})?` \| (\w+) \|", Path("docs/metrics.md").read_text(), re.M)
    check(len(rows) == len(dict(rows)), "docs/metrics.md lists a metric twice")
    check(dict(rows) == found, f"docs/metrics.md differs: {sorted(set(rows) ^ set(found.items()))}")
    print(f"docs/metrics.md lists all {len(rows)} metrics, with their types")


def dashboard():
    """Every query of the dashboard gives something, as Grafana would ask it."""
    panels = json.loads(Path("deploy/grafana/intentd.json").read_text())["panels"]
    check(len({panel["id"] for panel in panels}) == len(panels), "each panel has its id")
    targets = [(panel, target) for panel in panels for target in panel["targets"]]
    for panel, target in targets:
        expression = target["expr"].replace("$__rate_interval", "1m")
        expression = expression.replace("$namespace", ".*").replace("$job", "intentd")
        check("$" not in expression, expression)
        samples = query(expression)
        check(samples, f"{panel['title']}: nothing from {expression}")
        check(all(math.isfinite(value) for _, value in samples), f"{panel['title']}: {samples}")
    print(f"{len(targets)} queries of the dashboard's {len(panels)} panels give numbers")


def main():
    until("two targets", lambda: len(query("up == 1")) == 2)
    seen = []
    load(seen)
    for port, statuses in seen:
        name = ["first", "second"][mains.index(port)]
        print(f"load on the {name}: {dict(sorted(statuses.items()))}")
    statuses = {status for _, mine in seen for status in mine}
    check({200, 400, 429} <= statuses, f"answered, wrong and refused ones: {statuses}")

    texts = [get(f"http://127.0.0.1:{port}/metrics") for port in admins]
    lint("first", texts[0])
    lint("second, --triton-metrics", texts[1])

    metadata = ask("metadata")
    arrived = 0
    for port, text in zip(admins, texts):
        for family, type_ in families(text).items():
            series = f"{family}_bucket" if type_ == "histogram" else family
            instance = f"127.0.0.1:{port}"
            samples = query(f'{series}{{job="intentd", instance="{instance}"}}')
            check(samples, f"{series} of {instance} did not arrive")
            check(all(math.isfinite(value) for _, value in samples), f"{family}: {samples}")
            check([m["type"] for m in metadata[family]] == [type_], f"{family}: {metadata[family]}")
            arrived += 1
        scraped = query(f'scrape_samples_scraped{{instance="{instance}"}}')
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        check(scraped[0][1] == len(lines), f"{scraped} samples of {len(lines)}")
    print(f"{arrived} families arrived, with their types; no NaN, no infinity")

    documented({family: type_ for text in texts for family, type_ in families(text).items()})
    dashboard()

    ((_, demand),) = query("sum(intentd_autoscaling_demand_replicas)")
    check(math.isfinite(demand) and demand > 0, f"demand {demand}")
    print(f"sum(intentd_autoscaling_demand_replicas) = {demand:.6f}")
    ((_, refused),) = query('sum(intentd_refused_total{reason="concurrency"})')
    check(refused > 0, "refused ones are counted")

    def rules():
        found = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        return found if all(rule["health"] == "ok" for rule in found) else None

    found = until("all rules evaluate", rules)
    for rule in found:
        check(not rule.get("lastError"), rule)
    recorded = sorted({rule["name"] for rule in found if rule["type"] == "recording"})
    for name in recorded:
        samples = until(name, lambda: query(name))
        check([m for m, _ in samples] == [{"__name__": name, "namespace": "interop", "job": "intentd"}],
              f"{name}: {samples}")
        check(math.isfinite(samples[0][1]), f"{name}: {samples}")
        print(f"  {name} = {samples[0][1]:.6g}")
    alerts = [rule["name"] for rule in found if rule["type"] == "alerting"]
    print(f"{len(recorded)} recording rules have a value, {len(alerts)} alerts evaluate")
    firing = ask("alerts")["alerts"]
    check(all(alert["state"] == "pending" for alert in firing), firing)
    print("pending:", sorted(alert["labels"]["alertname"] for alert in firing))
    print("ok")


main()
