"""Keeps one object as it is wanted: makes it, changes it when the wish changes, undoes edits by hand, removes it.

Which of the two a difference is, the digest of the last wish tells: this process remembers it, and an annotation keeps
it for the next one. A difference that the API server itself makes of what is written (a default that is not known here)
is none, unless it is in a wall.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from koinon.domain.errors import Conflict, Invalid, NotFound
from koinon_operator import drift, metrics
from koinon_operator.cache import Cache
from koinon_operator.events import Recorder
from koinon_operator.fights import CALM_SECONDS, LONGEST_SECONDS, Fights
from koinon_operator.kinds import CONFIG_MAP, NETWORK_POLICY, RAY_CLUSTER, SECRET, SERVICE, Kind, Object, kind_of
from koinon_operator.kube import Kube
from koinon_operator.names import WANTED, digest

log = logging.getLogger("koinon.operator")

_FIXED_FIELDS = (SERVICE, SECRET, CONFIG_MAP, RAY_CLUSTER)
"""Kinds with fields that an edit by hand can set and nobody can change after. Walls have none, and never go away."""


class Outcome(Enum):
    SAME = "same"
    MADE = "made"
    CHANGED = "changed"
    REPAIRED = "repaired"
    ENDING = "ending"
    """It is being deleted and has to be gone before it can be made anew."""
    CONTESTED = "contested"
    """Somebody keeps changing it; it is not as wanted now, and is repaired later."""


@dataclass(frozen=True)
class Kept:
    outcome: Outcome
    live: Object | None
    wait: float = 0.0
    """Seconds until a contested object is repaired."""

    @property
    def there(self) -> bool:
        """Whether it is there as wanted."""
        return self.outcome not in (Outcome.ENDING, Outcome.CONTESTED)


class Keeper:
    def __init__(
        self, kube: Kube, cache: Cache, recorder: Recorder, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._recorder = recorder
        self._clock = clock
        self._fights = Fights()
        self._lock = threading.Lock()
        self._wishes: dict[str, str] = {}  # by place: digest of the last wish for what is there, or should be
        self._stored: dict[str, str] = {}  # by place: digest of what the API server made of it, if that is another

    def keep(self, wanted: Object, *, about: Object) -> Kept:
        """Raises what `Kube` raises. `about`: the Site or Grant that events go to."""
        kind, wanted = kind_of(wanted), _marked(wanted)
        meta = wanted["metadata"]
        live = self._cache.get(kind, meta["namespace"], meta["name"])
        try:
            return self._keep(kind, wanted, live, about)
        except (Conflict, NotFound):  # the cache is behind; look once
            live = self._look(kind, meta["namespace"], meta["name"])
            return self._keep(kind, wanted, live, about)

    def drop(self, kind: Kind, namespace: str, name: str, *, grace: int | None = None) -> bool:
        """Deletes an object. False if it was gone already."""
        self._wishes.pop(_place(kind, namespace, name), None)
        try:
            self._kube.delete(kind, namespace, name, grace=grace)
        except NotFound:
            self._cache.remove(kind, namespace, name)
            return False
        return True

    def repair(self, what: str, kind: Kind) -> bool:
        """Whether something that is no object of one's own may be repaired now; counts it if so."""
        with self._lock:
            now = self._clock()
            if self._fights.contested(what, now):
                metrics.CONTESTED.labels(kind=kind.name).inc()
                return False
            self._fights.repaired(what, now)
            self._fights.forget(now - CALM_SECONDS - LONGEST_SECONDS)
        metrics.DRIFT_REPAIRED.labels(kind=kind.name).inc()
        return True

    def _look(self, kind: Kind, namespace: str, name: str) -> Object | None:
        try:
            self._cache.put(kind, self._kube.get(kind, namespace, name))
        except NotFound:
            self._cache.remove(kind, namespace, name)
        return self._cache.get(kind, namespace, name)

    def _keep(self, kind: Kind, wanted: Object, live: Object | None, about: Object) -> Kept:
        place = _place(kind, wanted["metadata"]["namespace"], wanted["metadata"]["name"])
        if live is None:
            return self._missing(kind, wanted, place, about)
        if live["metadata"].get("deletionTimestamp"):
            return Kept(Outcome.ENDING, live)
        wish = wanted["metadata"]["annotations"][WANTED]
        before = self._wishes.get(place, (live["metadata"].get("annotations") or {}).get(WANTED))
        paths = drift.differences(wanted, live)
        if not paths or self._stored.get(place) == _stored(wish, live):
            self._wishes[place] = wish
            return Kept(Outcome.SAME, live)
        if before != wish:
            return Kept(Outcome.CHANGED, self._write(kind, wanted, live, place))
        return self._undo(kind, wanted, live, paths, place, about)

    def _missing(self, kind: Kind, wanted: Object, place: str, about: Object) -> Kept:
        again = place in self._wishes
        if again and not self.repair(place, kind):
            return self._contested(kind, place, "It is deleted again and again.", about)
        if not again and self._wait(place):
            return self._contested(kind, place, "It was changed again and again.", about)
        live = self._take(kind, wanted, self._kube.create(kind, wanted), place)
        if again:
            self._recorder.warn(about, "DriftRepaired", f"{place} was deleted by hand; it is back.")
        return Kept(Outcome.REPAIRED if again else Outcome.MADE, live)

    def _undo(self, kind: Kind, wanted: Object, live: Object, paths: list[str], place: str, about: Object) -> Kept:
        who = self._cache.editor(kind, wanted["metadata"]["namespace"], wanted["metadata"]["name"]) or "someone"
        shown = ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")
        if not self.repair(place, kind):
            return self._contested(kind, place, f"{who} keeps changing {shown}.", about)
        found = self._write(kind, wanted, live, place)
        self._recorder.warn(about, "DriftRepaired", f"{place} was changed by {who} ({shown}); it is as before.")
        return Kept(Outcome.REPAIRED, found)

    def _contested(self, kind: Kind, place: str, what: str, about: Object) -> Kept:
        todo = "It belongs to the Koinon operator: stop changing it. It is put back later."
        self._recorder.warn(about, "Contested", f"{place}: {what} {todo}")
        return Kept(Outcome.CONTESTED, None, self._wait(place))

    def _wait(self, place: str) -> float:
        """Seconds until a contested object may be repaired; 0 if it may be now."""
        with self._lock:
            return self._fights.wait(place, self._clock())

    def _write(self, kind: Kind, wanted: Object, live: Object, place: str) -> Object:
        try:
            found = self._kube.replace(kind, drift.carry(wanted, live))
        except Invalid:  # a field that cannot be changed back: the object has to be made anew
            if kind not in _FIXED_FIELDS:
                raise
            log.info("%s has to be made anew.", place)
            self._kube.delete(kind, wanted["metadata"]["namespace"], wanted["metadata"]["name"])
            found = self._kube.create(kind, wanted)
        return self._take(kind, wanted, found, place)

    def _take(self, kind: Kind, wanted: Object, found: Object, place: str) -> Object:
        """Remembers what the API server made of a wish."""
        wish = wanted["metadata"]["annotations"][WANTED]
        self._cache.put(kind, found)
        self._wishes[place] = wish
        self._stored.pop(place, None)
        paths = drift.differences(wanted, found)
        if paths and kind != NETWORK_POLICY:
            log.warning("%s: the API server adds or changes %s.", place, ", ".join(paths[:3]))
            self._stored[place] = _stored(wish, found)
        return found


def _marked(wanted: Object) -> Object:
    """A copy with the digest of itself."""
    meta = wanted["metadata"]
    annotations = {**meta.get("annotations", {}), WANTED: digest(wanted)}
    return {**wanted, "metadata": {**meta, "annotations": annotations}}


def _place(kind: Kind, namespace: str, name: str) -> str:
    return f"{kind.name} {namespace}/{name}"


def _stored(wish: str, live: Object) -> str:
    """Digest of all of an object that the operator writes, and of the wish that it came of."""
    meta = {key: live["metadata"].get(key) for key in ("labels", "annotations", "ownerReferences", "finalizers")}
    return digest([wish, meta, {key: value for key, value in live.items() if key not in ("metadata", "status")}])
