"""Checks the manifests in deploy/ against schemas, against each other and against the program.

Usage: check.py PROGRAM KUBECTL FOLDER [CRDS], from the root of the repository. KUBECTL prints what a folder builds to;
FOLDER has the packages that check.sh has fetched, and takes what is tried out. check.sh says where all comes from.
"""

import copy
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml

import binary
import names
from schemas import Schemas

DEPLOY = Path("deploy")
KUBERNETES = ["1.30", "1.37"]
# Whole objects that no overlay builds.
EXAMPLES = [DEPLOY / "components/scaler/scaledobject-polled.yaml"]
RULES = DEPLOY / "prometheus/intentd-rules.yaml"
OPERATOR_RULES = DEPLOY / "prometheus/prometheusrule.yaml"
OPERATOR_RULES_HEAD = """\
# Made from intentd-rules.yaml by tests/manifests/check.sh --write. Do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: intentd
  namespace: monitoring
  labels: {app: intentd}
spec:
"""


def operator_rules() -> str:
    """The rules, as the Prometheus Operator takes them."""
    rules = RULES.read_text()
    rules = rules[rules.index("groups:") :]
    return OPERATOR_RULES_HEAD + re.sub(r"(?m)^(?=.)", "  ", rules)


class Check:
    """Mistakes found so far, and the build that they are in."""

    def __init__(self):
        self.mistakes = []
        self.where = ""
        self.count = 0

    def __call__(self, fine, message: str):
        self.count += 1
        if not fine:
            self.mistakes.append(f"{self.where}: {message}")


check = Check()


class Build:
    """What one kustomization builds to."""

    def __init__(self, things: list):
        self.things = things

    def of(self, *kinds):
        return [thing for thing in self.things if thing["kind"] in kinds]

    def named(self, kind: str, name: str):
        return next((thing for thing in self.of(kind) if thing["metadata"]["name"] == name), None)

    def templates(self):
        """(name, labels, pod spec, whether Knative runs it) of everything that makes pods."""
        for thing in self.things:
            spec = thing.get("spec", {})
            if "template" not in spec or "spec" not in spec["template"]:
                continue
            knative = thing["apiVersion"].startswith("serving.knative.dev/")
            labels = dict(spec["template"]["metadata"].get("labels", {}))
            if knative:
                labels["serving.knative.dev/service"] = thing["metadata"]["name"]
            yield f"{thing['kind']}/{thing['metadata']['name']}", labels, spec["template"]["spec"], knative


def build(kubectl: list, folder: Path):
    done = subprocess.run([*kubectl, str(folder)], capture_output=True, text=True, check=False)
    check(done.returncode == 0, f"does not build: {done.stderr.strip()[-500:]}")
    # kustomize warns of what will be an error.
    check(done.returncode != 0 or not done.stderr.strip(), f"kustomize warns: {done.stderr.strip()[:500]}")
    return Build([thing for thing in yaml.safe_load_all(done.stdout) if thing])


def environment(container: dict, made: Build) -> dict:
    """Variables of a container; those from a Secret are None."""
    found = {}
    for source in container.get("envFrom", []):
        if reference := source.get("configMapRef"):
            config = made.named("ConfigMap", reference["name"])
            check(config, f"no ConfigMap {reference['name']}")
            found |= config["data"] if config else {}
    own = [variable["name"] for variable in container.get("env", [])]
    check(len(own) == len(set(own)), f"a variable twice: {own}")
    return found | {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def pods_are_restricted(name: str, pod: dict, knative: bool):
    """What the Pod Security Standard `restricted` and our own habits ask for."""
    check(pod.get("enableServiceLinks") is False, f"{name}: Services would come as INTENTD_… variables")
    check(pod.get("automountServiceAccountToken") is False, f"{name}: gets a token of the API server")
    outer = pod.get("securityContext", {})
    for container in pod["containers"]:
        inner = container.get("securityContext", {})
        seccomp = inner.get("seccompProfile") or outer.get("seccompProfile") or {}
        check(inner.get("runAsNonRoot") or outer.get("runAsNonRoot"), f"{name}: may be root")
        check(seccomp.get("type") == "RuntimeDefault", f"{name}: no seccomp profile")
        check(inner.get("allowPrivilegeEscalation") is False, f"{name}: may gain privileges")
        check(inner.get("readOnlyRootFilesystem") is True, f"{name}: may write its image")
        check(inner.get("capabilities", {}).get("drop") == ["ALL"], f"{name}: has capabilities")
        # Knative takes no other fields unless it is told to.
        check(not knative or not outer, f"{name}: securityContext of a pod is off in Knative by default")
        check(container["image"] == "intentd:latest", f"{name}: image {container['image']} instead of intentd:latest")
        check(container.get("resources", {}).get("limits"), f"{name}: no limits")


def containers_fit_the_program(program: str, commands: dict, name: str, pod: dict, made: Build, knative: bool) -> dict:
    """Flags, variables, ports and probes. Gives the paths that a server is probed at."""
    probed = {"main": set(), "admin": set()}
    for container in pod["containers"]:
        args = container.get("args", [])
        sub = args[0] if args and not args[0].startswith("-") else "serve"
        command = commands.get(sub)
        check(command, f"{name}: the program has no command {sub}")
        if not command:
            continue
        settings = {}
        for argument in args[1:] if args and sub == args[0] else args:
            flag, _, value = argument.removeprefix("--").partition("=")
            check(flag in command.words, f"{name}: intentd {sub} has no flag --{flag}")
            settings[flag] = value
        variables = environment(container, made)
        for variable, value in variables.items():
            if variable.startswith("INTENTD_"):
                check(variable in command.variables, f"{name}: intentd {sub} has no variable {variable}")
                if variable in command.variables:
                    settings.setdefault(command.variables[variable], value)
        # Knative sets it to the container's port.
        if knative:
            settings.setdefault("port", str(container["ports"][0]["containerPort"]))
        of_flag = {"http": "port", "http1": "port", "h2c": "port", "grpc": "port", "admin": "admin-port"}
        listening = {flag: settings.get(flag, command.defaults.get(flag)) for flag in ("port", "admin-port")}
        numbers = {}
        for port in container.get("ports", []):
            wanted = listening.get(of_flag[port["name"]])
            numbers[port["name"]] = port["containerPort"]
            check(
                str(port["containerPort"]) == wanted,
                f"{name}: port {port['name']} is {port['containerPort']}, and {sub} listens on {wanted}",
            )
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in container:
                continue
            asked = container[probe]["httpGet"]
            port = asked.get("port", container["ports"][0].get("name"))
            flag = of_flag.get(port)
            check(port in numbers, f"{name}: {probe} asks the port {port}, which the container has not")
            check(
                flag != "admin-port" or asked["path"] in command.words[flag],
                f"{name}: --admin-port of {sub} does not speak of {asked['path']}",
            )
            if sub == "serve":
                probed["admin" if flag == "admin-port" else "main"].add(asked["path"])
        # Values, where they do not need files or passwords.
        known = {key: value for key, value in variables.items() if key.startswith("INTENTD_")}
        if sub == "serve" and known.keys() <= command.variables.keys():
            if not any(value is None or value.startswith("/") for value in known.values()):
                # Else a machine without one refuses it.
                known = {key: value for key, value in known.items() if key != "INTENTD_DEVICE"}
                wrong = binary.settings_are_taken(program, known)
                check(not wrong, f"{name}: {wrong}")
    return probed


def address_leads_somewhere(made: Build, address: str, namespace: str):
    """An address of the build's own: a Service's name, with the namespace for those who live in another."""
    read = re.fullmatch(r"(?:https?://)?([\w-]+)(?:\.([\w-]+)\.svc)?:(\d+)(?:/.*)?", address)
    check(read, f"not understood: {address}")
    if read:
        service = made.named("Service", read[1])
        check((read[2] or "") == namespace, f"{address}: not in the namespace {namespace}")
        ports = [port["port"] for port in service["spec"]["ports"]] if service else []
        check(int(read[3]) in ports, f"{address}: no such Service or port")


def references_lead_somewhere(made: Build, readme: str):
    """Selectors, ports by name, targets, Secrets and ConfigMaps."""
    templates = list(made.templates())
    pods = [(labels, pod) for _, labels, pod, _ in templates]

    def chosen(selector: dict):
        return [pod for labels, pod in pods if selector.items() <= labels.items()]

    def ports_of(selected: list):
        ports = (port for pod in selected for container in pod["containers"] for port in container["ports"])
        return {port["name"]: port["containerPort"] for port in ports}

    for service in made.of("Service"):
        if not service["apiVersion"] == "v1":
            continue
        selected = chosen(service["spec"]["selector"])
        check(selected, f"Service {service['metadata']['name']} selects nothing")
        for port in service["spec"]["ports"]:
            target = port["targetPort"]
            check(isinstance(target, int) or target in ports_of(selected), f"no port {target} to serve")
    for policy in made.of("NetworkPolicy", "PodDisruptionBudget"):
        spec = policy["spec"]
        selector = spec.get("podSelector") or spec.get("selector")
        selected = chosen(selector["matchLabels"])
        check(selected, f"{policy['kind']} {policy['metadata']['name']} selects nothing")
        open_ports = set()
        for rule in spec.get("ingress", []):
            for port in rule["ports"]:
                open_ports |= set(range(port["port"], port.get("endPort", port["port"]) + 1))
        if "Ingress" in spec.get("policyTypes", []):
            closed = set(ports_of(selected).values()) - open_ports
            check(not closed, f"NetworkPolicy {policy['metadata']['name']} closes {closed}")
    for scaler in made.of("ScaledObject", "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]["name"]
        workload = made.named("Deployment", target)
        check(workload, f"{scaler['kind']}: no Deployment {target}")
        # Whoever applies it would set it back.
        check(not workload or "replicas" not in workload["spec"], f"{target} is scaled, and has `replicas`")
        for trigger in scaler["spec"].get("triggers", []):
            if address := trigger["metadata"].get("scalerAddress") or trigger["metadata"].get("url"):
                address_leads_somewhere(made, address, scaler["metadata"]["namespace"])
    for _, _, pod, _ in templates:
        for variable in pod["containers"][0].get("env", []):
            if variable["name"] == "INTENTD_SCALER_REPLICAS":
                address_leads_somewhere(made, variable["value"], "")
    certified = {certificate["spec"]["secretName"] for certificate in made.of("Certificate")}
    text = yaml.safe_dump(made.things)
    for secret in set(re.findall(r"secretName: (\S+)", text)) - certified:
        check(f"`{secret}`" in readme, f"the README does not say how to make the Secret {secret}")
    for account in re.findall(r"serviceAccountName: (\S+)", text):
        # The relay and the scaler stand beside the servers.
        check(made.named("ServiceAccount", account), f"no ServiceAccount {account}")
    check(not re.search(r"\bNAMESPACE\b|value: (BROKERS|TOPIC|GROUP)\b", text), "a placeholder is left")


def names_are_todays(made: Build):
    """Annotations of Knative, and keys of KEDA's triggers, which no schema knows."""
    for thing in made.things:
        metadata = [thing["metadata"], thing.get("spec", {}).get("template", {}).get("metadata", {})]
        for key, value in (item for m in metadata for item in m.get("annotations", {}).items()):
            if key.startswith(names.KNATIVE):
                check(key in names.ANNOTATIONS, f"annotation {key} is not one of today's")
                pattern = names.ANNOTATIONS.get(key, "")
                check(re.fullmatch(pattern, value), f"annotation {key} cannot be {value}")
        for annotations in (m.get("annotations", {}) for m in metadata):
            for mistake in names.mistakes(annotations):
                check(False, mistake)
        if thing["kind"] == "ScaledObject":
            check(thing["spec"]["triggers"], "no trigger")
            for trigger in thing["spec"]["triggers"]:
                known = names.TRIGGERS.get(trigger["type"], {})
                for key in trigger["metadata"]:
                    check(key in known, f"trigger {trigger['type']} has no {key}")
                for key, needed in known.items():
                    check(not needed or key in trigger["metadata"], f"trigger {trigger['type']} needs {key}")


def schemas_are_closed(schemas: Schemas, thing: dict):
    """Whether a field that does not exist would be found: a schema that takes anything checks nothing."""
    inner = thing.get("spec", {}).get("template", {}).get("spec", {})
    for place in [thing, thing.get("spec"), inner, *inner.get("containers", [])]:
        if place:
            place["notAField"] = 1
            check(list(schemas.check(thing)), f"{thing['kind']}: nobody minds `notAField`")
            del place["notAField"]


def what_the_readme_changes(program: str, commands: dict, kubectl: list, folder: Path, overlays: list, readme: str):
    """An overlay's `namespace`, `images` of whoever builds on it, and its own examples."""
    tree = folder / "copy"
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(DEPLOY, tree / "deploy")
    for overlay in overlays:
        check.where = f"{overlay} in another namespace"
        changed = tree / overlay / "kustomization.yaml"
        changed.write_text(changed.read_text().replace("namespace: intents", "namespace: elsewhere"))
        mine = tree / "mine"
        mine.mkdir(exist_ok=True)
        images = "images: [{name: intentd, newName: registry.example/intentd, newTag: '7'}]\n"
        (mine / "kustomization.yaml").write_text(f"resources: [../{overlay}]\n{images}")
        made = build(kubectl, mine)
        text = yaml.safe_dump(made.things)
        check(not re.search(r"\bintents\.svc|namespace: intents\b|=\"intents\"", text), "the old namespace is left")
        images = re.findall(r"image: (\S+)", text)
        check(set(images) <= {"registry.example/intentd:7"}, f"images {images}")
        changed.write_text((overlay / "kustomization.yaml").read_text())
    for number, example in enumerate(re.findall(r"(?s)```yaml\n(# mine/.*?)```", readme)):
        check.where = f"the README's kustomization {number + 1}"
        (mine / "kustomization.yaml").write_text(example)
        made = build(kubectl, mine)
        before = build(kubectl, tree / "mine" / yaml.safe_load(example)["resources"][0])
        check(made.things != before.things, "changes nothing")
        for name, _, pod, knative in made.templates():
            containers_fit_the_program(program, commands, name, pod, made, knative)
    shutil.rmtree(tree)


def main():
    program, kubectl, folder, *crds = sys.argv[1:]
    kubectl, folder = kubectl.split(), Path(folder)
    schemas = Schemas(
        KUBERNETES,
        sorted((folder / "wheels").glob("*.whl")),
        Path(crds[0]) if crds else None,
        Path(__file__).parent / "schemas/kafka.yaml",
    )
    commands = {name: binary.Command.of(program, name) for name in ("serve", "scaler", "relay")}
    commands = {name: command for name, command in commands.items() if command}
    readme = (DEPLOY / "README.md").read_text()
    check.where = str(OPERATOR_RULES)
    check(OPERATOR_RULES.read_text() == operator_rules(), "is not what tests/manifests/check.sh --write makes")
    same = yaml.safe_load(OPERATOR_RULES.read_text())["spec"] == yaml.safe_load(RULES.read_text())
    check(same, f"has other rules than {RULES}")

    kustomizations = {path.parent: yaml.safe_load(path.read_text()) for path in DEPLOY.rglob("kustomization.yaml")}
    folders = sorted(path for path, read in kustomizations.items() if read["kind"] == "Kustomization")
    overlays = [path for path in folders if path.parent.name == "overlays"]
    included = {(path / name).resolve() for path, read in kustomizations.items() for name in read.get("components", [])}
    for path in sorted(kustomizations.keys() - set(folders)):
        check.where = str(path)
        check(path.resolve() in included, "no overlay uses it")
    objects, everything, probed = Counter(), [], {"main": set(), "admin": set()}
    for path in [*folders, *EXAMPLES]:
        check.where = str(path)
        made = Build(list(yaml.safe_load_all(path.read_text()))) if path in EXAMPLES else build(kubectl, path)
        objects[path] = len(made.things)
        everything += made.things
        for thing in made.things:
            for mistake in schemas.check(thing):
                check(False, f"{thing['kind']}/{thing['metadata']['name']}: {mistake}")
            check.count += 1
        names_are_todays(made)
        if path in EXAMPLES:
            continue
        for name, _, pod, knative in made.templates():
            # The base says nothing of the machine.
            if path in overlays:
                pods_are_restricted(name, pod, knative)
            for port, paths in containers_fit_the_program(program, commands, name, pod, made, knative).items():
                probed[port] |= paths
        references_lead_somewhere(made, readme)
        if path in overlays:
            check(f"`{path.name}`" in readme, "the README does not name it")
    used = copy.deepcopy(schemas.used)
    for thing in {(thing["apiVersion"], thing["kind"]): thing for thing in everything}.values():
        check.where = "the schemas"
        if (thing["apiVersion"], thing["kind"]) not in schemas.skipped:
            schemas_are_closed(schemas, thing)
    check.where = "a server"
    for (port, path), status in binary.statuses(program, probed).items():
        check(status == 200, f"{path} on its {port} port answers {status}")
    what_the_readme_changes(program, commands, kubectl, folder, overlays, readme)
    check.where = str(DEPLOY / "README.md")
    for path in re.findall(r"\bdeploy/[\w./-]*\w", readme):
        check(Path(path).exists(), f"no {path}")
    for variable in set(re.findall(r"\bINTENTD_[A-Z0-9_]+", readme)):
        known = any(variable in command.variables for command in commands.values())
        check(known, f"the program has no variable {variable}")

    print(f"{len(objects)} builds and examples, {sum(objects.values())} objects, {check.count} checks")
    for (version, kind), origins in sorted(used.items()):
        print(f"  {kind} ({version}): " + ", ".join(f"{count} by {origin}" for origin, count in origins.items()))
    for (version, kind), count in sorted(schemas.skipped.items()):
        print(f"skipped: the schema of {count} {kind} ({version}) is not to be had here: set CRDS=")
    for mistake in dict.fromkeys(check.mistakes):
        print(mistake, file=sys.stderr)
    if check.mistakes:
        sys.exit(f"{len(dict.fromkeys(check.mistakes))} mistakes in deploy/")


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        OPERATOR_RULES.write_text(operator_rules())
    else:
        main()
