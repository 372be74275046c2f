"""JSON Schemas of the objects in the manifests, all of them closed: a field that is not in one is a mistake.

Kubernetes' own come from the package kubernetes-validate, in several versions. Those of custom resources come from
definitions (CRDs) in YAML, or else from packages of Python classes that were generated from them
(cloudcoil-models-…). Such a package's code is read, not run: it wants a newer Python than most have, and nothing of it
is needed but names and types.
"""

import ast
import functools
import json
import re
import zipfile
from pathlib import Path

import jsonschema
import kubernetes_validate
import referencing
import yaml

# Its own `validate` reads these files anew for each object, which takes minutes.
KUBERNETES = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"

SCALARS = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "AwareDatetime": {"type": "string"},
    "Base64Str": {"type": "string"},
    "Any": {},
    # Checked by kubernetes-validate, as that of every object.
    "ObjectMeta": {"type": "object"},
}
BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum", "pattern": "pattern"}


class Models:
    """The classes of one package, as schemas by `apiVersion` and `kind`."""

    def __init__(self, wheel: Path):
        self.origin = re.sub(r"_models_|_", " ", "-".join(wheel.name.split("-")[:2])).replace("cloudcoil ", "")
        self.schemas = {}
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if re.search(r"/v\d\w*\.py$", name):
                    self._read(archive.read(name).decode())

    def _read(self, source: str):
        # A module may be seven megabytes; only the classes that are needed are parsed.
        parts = re.split(r"(?m)^(?=class )", source)[1:]
        classes = {re.match(r"class (\w+)", part)[1]: part for part in parts}
        for name, part in classes.items():
            if re.match(r"class \w+\(Resource\)", part):
                version = re.search(r"Literal\[\"([^\"]+)\"\], Field\(alias=\"apiVersion\"\)", part)[1]
                self.schemas[version, name] = lambda name=name: closed(classes, name)


def closed(classes: dict, root: str) -> dict:
    """The schema of the class `root`, with all that it refers to."""
    definitions, wanted = {}, [root]

    def convert(node) -> dict:
        match node:
            case ast.Name(id=name) if name in SCALARS:
                return dict(SCALARS[name])
            case ast.Name(id=name):
                if name not in definitions:
                    wanted.append(name)
                return {"$ref": f"#/$defs/{name}"}
            case ast.Constant(value=None):
                return {"type": "null"}
            case ast.Constant(value=str(text)):
                return convert(ast.parse(text, mode="eval").body)
            case ast.BinOp():
                # Kubernetes drops what is null, so nobody has to write it.
                sides = [convert(side) for side in (node.left, node.right)]
                sides = [side for side in sides if side != {"type": "null"}]
                return sides[0] if len(sides) == 1 else {"anyOf": sides}
            case ast.Subscript(value=ast.Name(id="list"), slice=item):
                return {"type": "array", "items": convert(item)}
            case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, item])):
                return {"type": "object", "additionalProperties": convert(item)}
            case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
                return {"enum": [v.value for v in getattr(values, "elts", [values])]}
            case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, field])):
                found = convert(inner)
                for keyword in field.keywords:
                    value = getattr(keyword.value, "value", None)
                    if keyword.arg in BOUNDS:
                        found = {"allOf": [found], BOUNDS[keyword.arg]: value}
                    elif keyword.arg in ("min_length", "max_length"):
                        kind = {"array": "Items", "object": "Properties"}.get(found.get("type"), "Length")
                        found[keyword.arg[:3] + kind] = value
                return found
        raise ValueError(f"not understood: {ast.unparse(node)}")

    def alias(statement) -> str:
        match statement.annotation:
            case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[_, field])):
                for keyword in field.keywords:
                    if keyword.arg == "alias":
                        return keyword.value.value
        return statement.target.id

    while wanted:
        name = wanted.pop()
        if name in definitions:
            continue
        definitions[name] = {}
        [parsed] = ast.parse(classes[name]).body
        base = parsed.bases[0]
        if isinstance(base, ast.Subscript):
            definitions[name] = convert(base.slice)
            continue
        properties, required, additional = {}, [], False
        for statement in parsed.body:
            if isinstance(statement, ast.Assign) and "extra='allow'" in ast.unparse(statement):
                additional = True
            elif isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.annotation).startswith("ClassVar"):
                properties[alias(statement)] = convert(statement.annotation)
                if statement.value is None:
                    required.append(alias(statement))
        # Only the cluster writes it.
        properties.pop("status", None) if name == root else None
        definitions[name] = {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": additional,
        }
    return {"$ref": f"#/$defs/{root}", "$defs": definitions}


def definitions(folder: Path) -> dict:
    """Schemas by `apiVersion` and `kind` of all CustomResourceDefinitions in the YAML files below `folder`."""
    found = {}
    for path in sorted(folder.rglob("*.y*ml")):
        for document in yaml.safe_load_all(path.read_text()):
            if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
                continue
            spec = document["spec"]
            for version in spec["versions"]:
                if version.get("served"):
                    schema = structural(version["schema"]["openAPIV3Schema"], root=True)
                    found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def structural(schema, root=False):
    """A structural schema of Kubernetes as a JSON Schema that takes no field which it does not name."""
    if not isinstance(schema, dict):
        return schema
    dropped = {key for key in schema if key.startswith("x-") or key in ("format", "nullable")}
    kept = {key: value for key, value in schema.items() if key not in dropped}
    for key in ("items", "additionalProperties", "not"):
        if key in kept:
            kept[key] = structural(kept[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in kept:
            # Inside of these a structural schema names no fields, it only restricts them.
            kept[key] = [{**structural(part), "additionalProperties": True} for part in kept[key]]
    if "properties" in kept:
        kept["properties"] = {name: structural(part) for name, part in kept["properties"].items()}
        if root:
            kept["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
        kept.setdefault("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
    if schema.get("x-kubernetes-int-or-string"):
        kept.pop("type", None)
        kept.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if schema.get("nullable") and "type" in kept:
        kept["type"] = [kept["type"], "null"]
    return kept


@functools.cache
def registry(version: str):
    """What the schemas of one version of Kubernetes refer to."""
    contents = json.loads((KUBERNETES / f"v{version}.0-local-strict/_definitions.json").read_text())
    return referencing.Resource.from_contents(contents) @ referencing.Registry()


@functools.cache
def kubernetes(version: str, api: str, kind: str):
    """The validator of one of Kubernetes' own kinds, or None."""
    group, _, rest = api.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], rest) if part)
    path = KUBERNETES / f"v{version}.0-local-strict" / f"{name}.json"
    if not path.exists():
        return None
    return jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=registry(version))


class Schemas:
    """All schemas that there are, and which of them was used for what."""

    def __init__(self, versions: list, wheels: list, crds, own: Path):
        self.versions = versions
        self.used, self.skipped = {}, {}
        self.custom = {}
        for wheel in wheels:
            models = Models(wheel)
            self.custom |= {key: (models.origin, schema) for key, schema in models.schemas.items()}
        if crds:
            self.custom |= {key: (str(crds), lambda s=schema: s) for key, schema in definitions(crds).items()}
        ours = yaml.safe_load(own.read_text())
        self.ours = {}
        for key, spec in ours["kinds"].items():
            version, kind = key.split()
            self.ours[version, kind] = {
                "$defs": ours["$defs"],
                "type": "object",
                "required": ["apiVersion", "kind", "metadata", "spec"],
                "additionalProperties": False,
                "properties": {"apiVersion": {}, "kind": {}, "metadata": {}, "spec": spec},
            }
        self.validators = {}

    def check(self, thing: dict):
        """Yields what is wrong with one object."""
        key = thing["apiVersion"], thing["kind"]
        if "." not in key[0].split("/")[0] or key[0].split("/")[0].endswith(".k8s.io"):
            for version in self.versions:
                yield from self._core(thing, version)
            return
        # The metadata are Kubernetes' own, wherever they are.
        for version in self.versions:
            stand_in = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": thing["metadata"]}
            yield from self._core(stand_in, version, note=False)
        checked = False
        if key in self.custom:
            origin, schema = self.custom[key]
            yield from self._json(thing, key, origin, schema)
            checked = True
        if key in self.ours:
            yield from self._json(thing, key, "our own schemas/kafka.yaml", lambda: self.ours[key])
            checked = True
        if not checked:
            self.skipped[key] = self.skipped.get(key, 0) + 1

    def _core(self, thing: dict, version: str, note=True):
        key = thing["apiVersion"], thing["kind"]
        validator = kubernetes(version, *key)
        if validator is None:
            yield f"Kubernetes {version} has no {' '.join(key)}"
            return
        for error in validator.iter_errors(thing):
            where = ".".join(str(part) for part in error.path)
            yield f"Kubernetes {version}: {where}: {error.message[:300]}"
        if note:
            self._note(key, f"Kubernetes {version}")

    def _json(self, thing: dict, key: tuple, origin: str, schema):
        if (key, origin) not in self.validators:
            self.validators[key, origin] = jsonschema.Draft202012Validator(schema())
        for error in self.validators[key, origin].iter_errors(thing):
            where = ".".join(str(part) for part in error.path)
            yield f"{origin}: {where}: {error.message[:300]}"
        self._note(key, origin)

    def _note(self, key: tuple, origin: str):
        origins = self.used.setdefault(key, {})
        origins[origin] = origins.get(origin, 0) + 1
