"""Is what the API server has what the operator wants? Pure.

An object of the operator's own is wanted exactly: a field, label or entry that it did not name is drift as well,
since one line such as `hostNetwork: true` takes a wall down. Only what the API server itself fills in is passed over,
and quantities are compared as numbers. Pods, which are KubeRay's, are in `pod_drift`.
"""

from collections.abc import Iterator
from typing import Any

from koinon.domain.errors import Invalid
from koinon_operator import quantity
from koinon_operator.kinds import Object

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


def differences(wanted: Object, live: Object) -> list[str]:
    """Paths at which an object of the operator's own is not what it wants; none if all is well."""
    kind = str(wanted.get("kind", ""))
    left = {key: value for key, value in wanted.items() if key != "metadata"}
    right = {key: value for key, value in live.items() if key not in ("metadata", "status")}
    headless = ["spec.clusterIP"] if _headless(live) else []
    for section, fields in _SERVER_FIELDS.get(kind, {}).items():
        kept = {key: value for key, value in right.get(section, {}).items() if key not in fields}
        right = {**right, section: kept}
    return [*_metadata(wanted["metadata"], live["metadata"]), *exact(left, right, ""), *headless]


def _headless(live: Object) -> bool:
    return live.get("kind") == "Service" and live["spec"].get("clusterIP") == "None"


def _metadata(wanted: Object, live: Object) -> Iterator[str]:
    given = {key: value for key, value in wanted.items() if key not in _SERVER_METADATA}
    found = {key: value for key, value in live.items() if key not in _SERVER_METADATA}
    yield from exact(given, found, "metadata")


def carry(wanted: Object, live: Object) -> Object:
    """`wanted` as it replaces `live`: with its version, and with what the API server chose for it.

    Raises Invalid if the API server would keep a field that has to change.
    """
    if _headless(live):
        raise Invalid("A Service without an address is not given one by a change.")
    meta = {**wanted["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
    found = {**wanted, "metadata": meta}
    for section, fields in _SERVER_FIELDS.get(str(wanted.get("kind", "")), {}).items():
        chosen = {key: live[section][key] for key in fields if key in live.get(section, {})}
        found[section] = {**chosen, **wanted[section]}
    return found


def exact(wanted: Any, live: Any, path: str, *, amount: bool = False) -> Iterator[str]:
    """Paths at which the two differ in any way."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        # NB: an empty selector selects everything, so only null is the same as nothing.
        for key in sorted({*wanted, *live}):
            place = f"{path}.{key}" if path else str(key)
            yield from exact(wanted.get(key), live.get(key), place, amount=amount or key in _QUANTITIES)
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for index, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from exact(one, other, f"{path}[{index}]", amount=amount)
    elif not _same(wanted, live, amount):
        yield path


def _same(wanted: Any, live: Any, amount: bool) -> bool:
    return (type(wanted) is type(live) and wanted == live) or (amount and quantity.equal(wanted, live))


def within(wanted: Any, live: Any, path: str, *, amount: bool = False) -> Iterator[str]:
    """Paths of `wanted` that `live` does not have; more in `live` is no matter."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for key, value in wanted.items():
            yield from within(value, live.get(key), f"{path}.{key}", amount=amount or key in _QUANTITIES)
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
            yield from within(value, same[0], path)
    elif not any(not any(within(value, entry, path)) for entry in live):
        yield path
