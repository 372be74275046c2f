"""What a pod spec takes from elsewhere: volumes and environment."""

import base64
import os

from . import api, network


class Waiting(Exception):
    """Something that a pod needs is not there yet; its text is the reason that its status shows."""


KNOWN = {"secret", "configMap", "projected", "emptyDir", "downwardAPI"}


def content(namespace, kind, name, optional):
    """The entries of a Secret or ConfigMap as bytes."""
    item = api.get(f"/api/v1/namespaces/{namespace}/{kind}/{name}")
    if item is None:
        if optional:
            return {}
        raise Waiting(f"{kind}/{name} is missing")
    entries = {name: value.encode() for name, value in (item.get("data") or {}).items()}
    if kind == "secrets":
        entries = {name: base64.b64decode(value) for name, value in entries.items()}
    return entries


def chosen(entries, source):
    """The entries that a volume's `items` names, by its paths."""
    if not source.get("items"):
        return entries
    found = {item["path"]: entries[item["key"]] for item in source["items"] if item["key"] in entries}
    if len(found) < len(source["items"]) and not source.get("optional"):
        raise Waiting("a key of a volume is missing")
    return found


def token(pod, source):
    """A token of the pod's service account."""
    account = pod.spec["serviceAccountName"]
    bound = {"kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid}
    spec = {"expirationSeconds": source.get("expirationSeconds", 3607), "boundObjectRef": bound}
    if source.get("audience"):
        spec["audiences"] = [source["audience"]]
    path = f"/api/v1/namespaces/{pod.namespace}/serviceaccounts/{account}/token"
    return api.request("POST", path, {"spec": spec})["status"]["token"].encode()


def files(pod, volume):
    """The files of a volume, by path."""
    kinds = set(volume) - {"name"}
    if not kinds <= KNOWN:
        raise ValueError(f"volumes of kind {kinds} are not known here")
    if "secret" in volume:
        source = volume["secret"]
        return chosen(content(pod.namespace, "secrets", source["secretName"], source.get("optional")), source)
    if "configMap" in volume:
        source = volume["configMap"]
        return chosen(content(pod.namespace, "configmaps", source["name"], source.get("optional")), source)
    if "downwardAPI" in volume:
        return downward(pod, volume["downwardAPI"]["items"])
    found = {}
    for source in volume.get("projected", {}).get("sources", []):
        if "serviceAccountToken" in source:
            found[source["serviceAccountToken"]["path"]] = token(pod, source["serviceAccountToken"])
        elif "downwardAPI" in source:
            found.update(downward(pod, source["downwardAPI"]["items"]))
        else:
            inner = source.get("configMap") or source["secret"]
            kind = "configmaps" if "configMap" in source else "secrets"
            found.update(chosen(content(pod.namespace, kind, inner["name"], inner.get("optional")), inner))
    return found


def downward(pod, items):
    """Files with fields of the pod."""
    return {item["path"]: field(pod, item["fieldRef"]["fieldPath"]).encode() for item in items if "fieldRef" in item}


def field(pod, path):
    """A field of the pod, as `fieldRef` names it."""
    known = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "status.podIP": pod.network.address,
        "status.hostIP": network.NODE,
        "spec.nodeName": "node",
        "spec.serviceAccountName": pod.spec.get("serviceAccountName", ""),
    }
    return known[path]


def write(folder, entries, mode, group):
    """Writes the files that differ, each in one step, as programs that watch them expect."""
    os.makedirs(folder, exist_ok=True)
    for path, value in entries.items():
        target = os.path.join(folder, path)
        if os.path.exists(target):
            with open(target, "rb") as file:
                if file.read() == value:
                    continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target + ".new", "wb") as file:
            file.write(value)
        os.chmod(target + ".new", mode)
        os.chown(target + ".new", 0, group)
        os.rename(target + ".new", target)


def place(pod, folder):
    """Writes all volumes of a pod below a folder, and returns their folders by name. Called again, it brings them up
    to date."""
    group = pod.spec.get("securityContext", {}).get("fsGroup", 0)
    folders = {}
    for volume in pod.spec.get("volumes", []):
        target = folders[volume["name"]] = os.path.join(folder, volume["name"])
        source = next((volume[kind] for kind in KNOWN & set(volume)), None) or {}
        write(target, files(pod, volume), source.get("defaultMode", 0o644), group)
        if "emptyDir" in volume:
            os.chmod(target, 0o777)
    return folders


def environment(pod, container):
    """The environment of a container, without what its image sets."""
    found = {
        "HOSTNAME": pod.name,
        "KUBERNETES_SERVICE_HOST": api.ADDRESS[0],
        "KUBERNETES_SERVICE_PORT": str(api.ADDRESS[1]),
    }
    for source in container.get("envFrom", []):
        kind, inner = (
            ("configmaps", source["configMapRef"]) if "configMapRef" in source else ("secrets", source["secretRef"])
        )
        for name, value in content(pod.namespace, kind, inner["name"], inner.get("optional")).items():
            found[source.get("prefix", "") + name] = value.decode()
    for variable in container.get("env", []):
        source = variable.get("valueFrom")
        if source is None:
            found[variable["name"]] = variable.get("value", "")
        elif "fieldRef" in source:
            found[variable["name"]] = field(pod, source["fieldRef"]["fieldPath"])
        elif "resourceFieldRef" in source:
            found[variable["name"]] = "2"
        else:
            kind, inner = (
                ("secrets", source["secretKeyRef"])
                if "secretKeyRef" in source
                else ("configmaps", source["configMapKeyRef"])
            )
            entries = content(pod.namespace, kind, inner["name"], inner.get("optional"))
            if inner["key"] in entries:
                found[variable["name"]] = entries[inner["key"]].decode()
            elif not inner.get("optional"):
                raise Waiting(f"{kind}/{inner['name']} lacks {inner['key']}")
    return found
