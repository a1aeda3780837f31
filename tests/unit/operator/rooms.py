"""A hospital in memory: the operator's own reconciles over an API server of a few lines, one step at a time."""

import copy
import itertools
from collections.abc import Callable
from typing import cast

from koinon.domain.errors import Conflict, NotFound
from koinon.domain.manifest import Manifest
from koinon_operator import status
from koinon_operator.agents import Agents
from koinon_operator.cache import Cache
from koinon_operator.events import Recorder
from koinon_operator.keeper import Keeper
from koinon_operator.kinds import CLAIM, RAY_CLUSTER, SERVICE, Kind, Object, kind_of
from koinon_operator.kube import Kube
from koinon_operator.lookup import Lookup
from koinon_operator.names import cluster, short
from koinon_operator.queue import Queue
from koinon_operator.reconcile import project, site
from koinon_operator.settings import Settings
from koinon_operator.watching import Feed
from koinon_operator.world import Key, World
from tests.unit.operator import samples

HOME, WORK = "lyon", "lyon-work"
Address = tuple[Kind, str, str]


class Server:
    """Stores objects; `feed` sees each change as a watch would."""

    address = ("10.96.0.1", 443)

    def __init__(self) -> None:
        self.objects: dict[Address, Object] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.events: list[tuple[str, str]] = []
        self.feed: Callable[[Kind, str, Object], None] = lambda kind, what, obj: None
        self._versions = itertools.count(10_000)

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        try:
            return copy.deepcopy(self.objects[kind, namespace, name])
        except KeyError:
            raise NotFound("gone") from None

    def list(self, kind: Kind, namespace: str, *, field: str = "", label: str = "") -> tuple[list[Object], str]:
        key, _, value = label.partition("=")
        found = [
            copy.deepcopy(obj)
            for (of, there, _), obj in self.objects.items()
            if (of, there) == (kind, namespace) and (not label or obj["metadata"].get("labels", {}).get(key) == value)
        ]
        return found, str(next(self._versions))

    def create(self, kind: Kind, body: Object) -> Object:
        if _address(kind, body) in self.objects:
            raise Conflict("there already")
        made = samples.seen(body)
        if kind == SERVICE:
            made["spec"].setdefault("clusterIP", "10.96.9.9")
        return self._store("create", "ADDED", kind, made)

    def replace(self, kind: Kind, body: Object) -> Object:
        known = self.get(kind, body["metadata"]["namespace"], body["metadata"]["name"])
        meta = {key: known["metadata"][key] for key in ("uid", "generation")}
        meta["generation"] += known.get("spec") != body.get("spec")
        return self._store("replace", "MODIFIED", kind, samples.seen(body, **meta))

    def patch_status(self, kind: Kind, namespace: str, name: str, status: Object) -> Object:
        return self._store("status", "MODIFIED", kind, {**self.get(kind, namespace, name), "status": status})

    def annotate(self, kind: Kind, namespace: str, name: str, annotations: object) -> Object:
        raise NotFound("There is no agent here.")

    def delete(self, kind: Kind, namespace: str, name: str, *, grace: int | None = None) -> None:
        self.calls.append(("delete", kind.name, name))
        obj = self.get(kind, namespace, name)
        if obj["metadata"].get("finalizers"):
            obj["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:20Z"
            self._store("delete", "MODIFIED", kind, obj)
            return
        del self.objects[kind, namespace, name]
        self.feed(kind, "DELETED", obj)

    def event(self, about: Object, *, warning: bool, reason: str, message: str, when: str) -> None:
        self.events.append((reason, message))

    def _store(self, verb: str, what: str, kind: Kind, obj: Object) -> Object:
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        self.calls.append((verb, kind.name, obj["metadata"]["name"]))
        self.objects[_address(kind, obj)] = obj
        self.feed(kind, what, copy.deepcopy(obj))
        return copy.deepcopy(obj)


def _address(kind: Kind, obj: Object) -> Address:
    return kind, obj["metadata"]["namespace"], obj["metadata"]["name"]


class Room:
    """One hospital with its Site and its data; `settle` lets the operator do what it has wished for."""

    def __init__(self) -> None:
        self.now: float = samples.NOW + 10
        self.server, cache = Server(), Cache()
        settings = Settings({HOME: WORK})
        kube = cast(Kube, self.server)
        recorder = Recorder(kube, clock=lambda: self.now)
        keeper = Keeper(kube, cache, recorder, clock=lambda: self.now)
        self.queue: Queue[Key] = Queue(lane=lambda key: key[0], clock=lambda: self.now)
        self.world = World(
            settings=settings,
            kube=kube,
            cache=cache,
            keeper=keeper,
            recorder=recorder,
            queue=self.queue,
            agents=Agents({HOME: "http://agent.invalid"}),
            lookup=Lookup(),
            clock=lambda: self.now,
        )
        feed = Feed(cache, lambda namespace: settings.homes.get(namespace, namespace), self.queue.add)
        self.server.feed = feed.take
        self.put(samples.site())
        self.put(CLAIM.make(WORK, "heart", {"status": {"phase": "Bound"}}))

    def put(self, obj: Object) -> Object:
        """Somebody applies an object that was not there."""
        return self.server.create(kind_of(obj), obj)

    def edit(self, kind: Kind, name: str, change: Callable[[Object], object], namespace: str = WORK) -> None:
        obj = self.server.get(kind, namespace, name)
        change(obj)
        self.server.replace(kind, obj)

    def grant(self, name: str = "heart") -> Manifest:
        manifest = samples.manifest(name)
        self.put(samples.grant_resource(manifest))
        self.settle()
        return manifest

    def pod(self, manifest: Manifest) -> Object:
        """The head's pod, as KubeRay makes it of the RayCluster as it is."""
        found = self.server.get(RAY_CLUSTER, WORK, cluster(short(manifest.digest())))
        made = self.put(samples.pod(found, "head"))
        self.settle()
        return made

    def settle(self, most: int = 200) -> None:
        """Reconciles until nothing is wished for now."""
        for _ in range(most):
            key = self.queue.get(timeout=0.0)
            if key is None:
                return
            home, name = key
            after = project.reconcile(self.world, home, name) if name else site.reconcile(self.world, home)
            self.queue.done(key, after=after)
        raise AssertionError(f"still busy after {most} reconciles")

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def condition(self, kind: Kind, of: str) -> tuple[str, str]:
        """Truth and reason of a condition of the only Site or Grant."""
        (obj,) = [obj for (found, *_), obj in self.server.objects.items() if found == kind]
        told = status.find(obj.get("status") or {}, of) or {}
        return told.get("status", ""), told.get("reason", "")

    def names(self, kind: Kind) -> list[str]:
        return sorted(name for found, _, name in self.server.objects if found == kind)
