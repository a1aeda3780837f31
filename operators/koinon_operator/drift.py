"""Is what the API server has what the operator wants? Pure.

An object of the operator's own is wanted exactly: a field, label or entry that it did not name is drift as well,
since one line such as `hostNetwork: true` takes a wall down. Only what the API server itself fills in is passed over,
and quantities are compared as numbers. Pods are KubeRay's, which adds to the template: of them all that was wanted
must be there, and nothing more of what could open a wall.
"""

from collections.abc import Iterator
from typing import Any

from koinon_operator import quantity
from koinon_operator.kinds import Object
from koinon_operator.names import DENIAL_CONTAINER

_SERVER_METADATA = frozenset(
    ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "name", "namespace")
)
_SERVER_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "Service": {
        "spec": ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"),
    },
}
"""By kind: fields whose value the API server chooses."""

_QUANTITIES = frozenset(
    ("limits", "requests", "hard", "max", "min", "default", "defaultRequest", "maxLimitRequestRatio", "sizeLimit")
)
_ADDED_CONTAINERS = frozenset(("wait-gcs-ready",))
_OPENINGS = ("hostNetwork", "hostPID", "hostIPC", "ephemeralContainers", "shareProcessNamespace")


def differences(wanted: Object, live: Object) -> list[str]:
    """Paths at which an object of the operator's own is not what it wants; none if all is well."""
    kind = str(wanted.get("kind", ""))
    left = {key: value for key, value in wanted.items() if key != "metadata"}
    right = {key: value for key, value in live.items() if key not in ("metadata", "status")}
    for section, fields in _SERVER_FIELDS.get(kind, {}).items():
        kept = {key: value for key, value in right.get(section, {}).items() if key not in fields}
        right = {**right, section: kept}
    return [*_metadata(wanted["metadata"], live["metadata"]), *_exact(left, right, "")]


def _metadata(wanted: Object, live: Object) -> Iterator[str]:
    given = {key: value for key, value in wanted.items() if key not in _SERVER_METADATA}
    found = {key: value for key, value in live.items() if key not in _SERVER_METADATA}
    yield from _exact(given, found, "metadata")


def carry(wanted: Object, live: Object) -> Object:
    """`wanted` as it replaces `live`: with its version, and with what the API server chose for it."""
    meta = {**wanted["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
    found = {**wanted, "metadata": meta}
    for section, fields in _SERVER_FIELDS.get(str(wanted.get("kind", "")), {}).items():
        chosen = {key: live[section][key] for key in fields if key in live.get(section, {})}
        found[section] = {**chosen, **wanted[section]}
    return found


def _exact(wanted: Any, live: Any, path: str, *, amount: bool = False) -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(live, dict):
        # NB: an empty selector selects everything, so only null is the same as nothing.
        for key in sorted({*wanted, *live}):
            place = f"{path}.{key}" if path else str(key)
            yield from _exact(wanted.get(key), live.get(key), place, amount=amount or key in _QUANTITIES)
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from _exact(one, other, f"{path}[{index}]", amount=amount)
    elif not _same(wanted, live, amount):
        yield path


def _same(wanted: Any, live: Any, amount: bool) -> bool:
    return (type(wanted) is type(live) and wanted == live) or (amount and quantity.equal(wanted, live))


def pod_differences(template: Object, pod: Object) -> list[str]:
    """Paths at which a Ray pod is not made from `template`, or opens more than it."""
    wanted, live = template["spec"], pod["spec"]
    found = list(_within(wanted, live, "spec"))
    found += [f"spec.{name}" for name in _OPENINGS if live.get(name)]
    for section in ("containers", "initContainers", "volumes"):
        known = {entry["name"] for entry in wanted.get(section) or []}
        known |= _ADDED_CONTAINERS if section == "initContainers" else set()
        more = [entry["name"] for entry in live.get(section) or [] if entry["name"] not in known]
        found += [f"spec.{section}[{name}]" for name in more]
    first: Object = next(iter(live.get("initContainers") or []), {})
    if first.get("name") != DENIAL_CONTAINER:
        found.append("spec.initContainers[0]")
    return found


def _within(wanted: Any, live: Any, path: str, *, amount: bool = False) -> Iterator[str]:
    """Paths of `wanted` that `live` does not have; more in `live` is no matter here."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for key, value in wanted.items():
            yield from _within(value, live.get(key), f"{path}.{key}", amount=amount or key in _QUANTITIES)
    elif isinstance(wanted, list) and isinstance(live, list):
        for index, value in enumerate(wanted):
            yield from _entry(value, live, f"{path}[{index}]")
    elif not _same(wanted, live, amount):
        yield path


def _entry(value: Any, live: list[Any], path: str) -> Iterator[str]:
    if isinstance(value, dict) and "name" in value:
        same = [entry for entry in live if isinstance(entry, dict) and entry.get("name") == value["name"]]
        if len(same) != 1:
            yield path
        else:
            yield from _within(value, same[0], path)
    elif not any(not any(_within(value, entry, path)) for entry in live):
        yield path
