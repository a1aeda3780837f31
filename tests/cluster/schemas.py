"""JSON schemas for kubeconform, made from what the API server itself says of its kinds, custom resources included."""

import json
from pathlib import Path
from typing import Any

from tests.cluster import kubectl

_PLACE = "#/definitions/"
# What the API takes beyond the type that it publishes.
_LOOSE = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["number", "string"]},
}


def write(folder: Path) -> str:
    """Writes a schema for each kind, strict about unknown fields; returns kubeconform's -schema-location for them."""
    published: dict[str, Any] = json.loads(kubectl.run("get", "--raw", "/openapi/v2"))["definitions"]
    definitions = {name: _strict(body) for name, body in published.items()} | _LOOSE
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in published.items():
        kinds = body.get("x-kubernetes-group-version-kind", [])
        if kinds:
            parts = {part: definitions[part] for part in _reached(name, definitions)}
            schema = json.dumps({"$ref": _PLACE + name, "definitions": parts})
            for kind in kinds:
                file = f"{kind['group'] or kind['version']}-{kind['version']}-{kind['kind'].lower()}.json"
                (folder / file).write_text(schema)
    return f"{folder}/{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}-{{{{.ResourceKind}}}}.json"


def _reached(name: str, definitions: dict[str, Any]) -> set[str]:
    """The definition and all that it refers to, at any depth."""
    reached: set[str] = set()
    ahead = [name]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached.add(name)
            ahead += _references(definitions[name])
    return reached


def _references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in _references(item)]
    if not isinstance(schema, dict):
        return []
    below = [name for part in schema.values() for name in _references(part)]
    own = schema.get("$ref")
    return [own.removeprefix(_PLACE), *below] if isinstance(own, str) else below  # a dict: a property of that name


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    prose = isinstance(schema.get("description"), str)  # most of the text, and no help
    closed = {name: _strict(part) for name, part in schema.items() if not (prose and name == "description")}
    if schema.get("x-kubernetes-int-or-string") is True:
        closed["type"] = ["integer", "string"]
    properties = isinstance(schema.get("properties"), dict)
    loose = schema.get("x-kubernetes-preserve-unknown-fields") is True or "additionalProperties" in schema
    if properties and not loose:
        closed["additionalProperties"] = False
    return closed
