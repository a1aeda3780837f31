"""What the operator has read: the newest version of every object that it watches. Thread-safe.

Versions of one kind and namespace are numbers that grow; an older one never replaces a newer one, and what is gone
never comes back, so that the answers to the operator's own writes, lists and the events of a watch may arrive in any
order.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from koinon_operator.kinds import CLAIM, POD, Kind, Object
from koinon_operator.names import project_of

_STATUS_COUNTS = (POD, CLAIM)
_DEAD_SECONDS = 600.0
"""Far longer than any answer that may still speak of what is gone is under way."""
_MOST_DEAD = 10_000


@dataclass(frozen=True)
class Change:
    """What an event changed. `essential`: more than versions and, of most kinds, status."""

    essential: bool
    before: Object | None


class Cache:
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._objects: dict[tuple[Kind, str], dict[str, Object]] = {}
        self._editors: dict[tuple[Kind, str, str], str] = {}
        self._dead: dict[str, float] = {}  # by uid, which never comes again: when it was known; oldest first

    def put(self, kind: Kind, obj: Object) -> Change | None:
        """Takes an object over; None if a version as new was known, or it is gone since.

        Keeps `obj`, which must not be changed after.
        """
        meta = obj["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        editor = _editor(meta.pop("managedFields", None) or [])
        with self._lock:
            known = self._objects.setdefault((kind, namespace), {})
            before = known.get(name)
            if meta.get("uid") in self._dead:
                return None
            same = before is not None and before["metadata"].get("uid") == meta.get("uid")
            if before is not None and same and _version(before) >= _version(obj):
                return None
            known[name] = obj
            self._editors[kind, namespace, name] = editor
        return Change(before is None or _essence(kind, before) != _essence(kind, obj), before)

    def remove(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> Object | None:
        """Forgets an object that is gone; with `uid` only that one, not its successor of the same name."""
        with self._lock:
            found = self._objects.get((kind, namespace), {}).get(name)
            if found is None or (uid and found["metadata"].get("uid") != uid):
                self._bury(uid)
                return None
            return self._forget(kind, namespace, name)

    def replace(self, kind: Kind, namespace: str, objects: Iterable[Object], version: str) -> list[Object]:
        """Takes a whole list over that was read at `version`; returns those that are gone since the last one."""
        listed: set[str] = set()
        for obj in objects:
            listed.add(obj["metadata"]["name"])
            self.put(kind, obj)
        with self._lock:
            known = self._objects.setdefault((kind, namespace), {})
            gone = [name for name, obj in known.items() if name not in listed and _version(obj) <= _number(version)]
            return [self._forget(kind, namespace, name) for name in gone]

    def _forget(self, kind: Kind, namespace: str, name: str) -> Object:
        self._editors.pop((kind, namespace, name), None)
        found = self._objects[kind, namespace].pop(name)
        self._bury(found["metadata"].get("uid", ""))
        return found

    def _bury(self, uid: str) -> None:
        now = self._clock()
        if uid:
            self._dead.pop(uid, None)
            self._dead[uid] = now
        while self._dead:
            oldest = next(iter(self._dead))
            if len(self._dead) <= _MOST_DEAD and now - self._dead[oldest] < _DEAD_SECONDS:
                break
            del self._dead[oldest]

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        with self._lock:
            return self._objects.get((kind, namespace), {}).get(name)

    def select(self, kind: Kind, namespace: str, project: str = "") -> list[Object]:
        """All of a namespace by name, or those of a project."""
        with self._lock:
            found = sorted(self._objects.get((kind, namespace), {}).items())
        return [obj for _, obj in found if not project or project_of(obj) == project]

    def editor(self, kind: Kind, namespace: str, name: str) -> str:
        """Who wrote the object last, as the API server noted it; "" if it did not."""
        with self._lock:
            return self._editors.get((kind, namespace, name), "")


def _version(obj: Object) -> int:
    return _number(obj["metadata"].get("resourceVersion", ""))


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0


def _editor(fields: list[Object]) -> str:
    entries = [entry for entry in fields if not entry.get("subresource")]
    newest = max(entries, key=lambda entry: str(entry.get("time", "")), default={})
    return str(newest.get("manager", ""))


def _essence(kind: Kind, obj: Object) -> Object:
    noise = ("resourceVersion", "generation", "managedFields")
    meta = {key: value for key, value in obj["metadata"].items() if key not in noise}
    kept = {key: value for key, value in obj.items() if key != "status" or kind in _STATUS_COUNTS}
    return {**kept, "metadata": meta}
