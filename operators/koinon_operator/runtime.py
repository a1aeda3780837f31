"""The operator's threads: watches feed the cache, workers reconcile keys, and now and then everything is read anew.

Nothing is reconciled before everything was read once: what is not in the cache would count as gone.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from koinon.domain.errors import KoinonError, NotFound
from koinon_operator import gauges, health, metrics
from koinon_operator.agents import Agents
from koinon_operator.cache import Cache
from koinon_operator.events import Recorder
from koinon_operator.keeper import Keeper
from koinon_operator.kinds import HOME, RAY_CLUSTER, WORK, Kind
from koinon_operator.kube import Kube
from koinon_operator.lookup import Lookup
from koinon_operator.queue import Queue
from koinon_operator.reconcile import foundation, project, site
from koinon_operator.settings import Settings
from koinon_operator.watching import ONLY_HOME, ONLY_WORK, Feed, Watch, field_selector, key_of
from koinon_operator.world import Key, World

log = logging.getLogger("koinon.operator")

_START_SECONDS = 5.0
_FIRST_LOOKUP_SECONDS = 2.0
_AGAIN_SECONDS = 10.0  # the second reading, for what was deleted before the watches began; and while KubeRay is missing
_LOOKUP_SECONDS = 60.0
_STALE = 3.0  # resyncs that may be missed


class Operator:
    def __init__(self, settings: Settings) -> None:
        kube, cache = Kube(connections=settings.threads + 4), Cache()
        recorder = Recorder(kube)
        urls = {home: settings.agent_url.format(namespace=home) for home in settings.hospitals}
        self._settings = settings
        self._queue: Queue[Key] = Queue(lane=lambda key: key[0])
        self.world = World(
            settings=settings,
            kube=kube,
            cache=cache,
            keeper=Keeper(kube, cache, recorder),
            recorder=recorder,
            queue=self._queue,
            agents=Agents(urls),
            lookup=Lookup(),
        )
        self._feed = Feed(cache, lambda namespace: settings.homes.get(namespace, namespace), self._queue.add)
        self._stopping = threading.Event()
        self._failure = ""
        self._synced = 0.0

    def run(self) -> int:
        """Until `stop`. Returns the exit status: 1 if something failed and the process should be started anew."""
        server = health.serve(self._settings.health_port, live=self._live, ready=self._ready, metrics=self._metrics)
        watches: list[Watch] = []
        workers = [threading.Thread(target=self._work, name=f"work-{n}") for n in range(self._settings.threads)]
        try:
            if self._first_sync():
                self._first_lookup()
                watches = self._watch()
                for thread in (*watches, *workers):
                    thread.start()
                loops = ((self._resync_loop, "resync"), (self._ask_loop, "agents"), (self._lookup_loop, "lookup"))
                for target, name in loops:
                    threading.Thread(target=target, name=name, daemon=True).start()
                self._stopping.wait()
        finally:
            self._queue.close()
            for watch in watches:
                watch.stop()
            for thread in (*workers, *watches):
                if thread.ident is not None:
                    thread.join(timeout=10)
            server.shutdown()
            server.server_close()
        return 1 if self._failure else 0

    def stop(self, failure: str = "") -> None:
        if failure:
            log.error("The operator stops, to be started anew: %s", failure)
        self._failure = self._failure or failure
        self._stopping.set()

    def _watch(self) -> list[Watch]:
        work = tuple(kind for kind in WORK if kind not in self.world.absent)
        hospitals = self._settings.hospitals
        return [
            Watch(HOME, ONLY_HOME, list(hospitals), self._feed.take, self.stop),
            Watch(work, ONLY_WORK, list(hospitals.values()), self._feed.take, self.stop),
        ]

    def _live(self) -> tuple[bool, dict[str, object]]:
        age = time.monotonic() - self._synced if self._synced else None
        good = age is None or age < _STALE * self._settings.resync_seconds + 60
        return good, {"seconds_since_resync": age if age is None else round(age, 1), "queue": len(self._queue)}

    def _metrics(self) -> bytes:
        return gauges.text(self.world.cache, self._settings.hospitals)

    def _ready(self) -> tuple[bool, dict[str, object]]:
        return bool(self._synced), {"synced": bool(self._synced)}

    def _first_sync(self) -> bool:
        """Reads everything, however long the API server or a right is missing. False if stopped meanwhile."""
        while not self._stopping.is_set():
            try:
                self.resync()
                return True
            except KoinonError as error:
                log.warning("Not everything can be read: %s", error)
                for home in self._settings.hospitals:
                    self._refuse(home, error)
            self._stopping.wait(_START_SECONDS)
        return False

    def _first_lookup(self) -> None:
        """Names that are known by now, so that a new start does not change what an old one wrote; not for long."""
        for home in self._settings.hospitals:
            hospital = self.world.hospital(home)
            if hospital is not None:
                _survive(f"the first lookup for {home}", partial(foundation.targets, self.world, home, hospital))
        first = threading.Thread(target=self.world.lookup.refresh, args=(self._all_sites,), daemon=True)
        first.start()
        first.join(_FIRST_LOOKUP_SECONDS)

    def _refuse(self, home: str, error: KoinonError) -> None:
        try:
            site.refuse(self.world, home, error)
        except KoinonError as another:
            log.warning("Nor can that be said on the Site: %s", another)

    def resync(self) -> None:
        """Reads everything anew and wishes for every key."""
        keys: dict[Key, None] = {}
        for home, work in self._settings.hospitals.items():
            keys[home, ""] = None
            for kinds, only, namespace in ((HOME, ONLY_HOME, home), (WORK, ONLY_WORK, work)):
                for kind in kinds:
                    keys |= dict.fromkeys(self._read(kind, only, namespace, home))
        for key in keys:
            self._queue.add(key)
        self._synced = time.monotonic()
        metrics.LAST_RESYNC.set(time.time())

    def _read(self, kind: Kind, only: Mapping[Kind, str], namespace: str, home: str) -> list[Key]:
        """The keys of all objects of a kind, and of those that are gone since the last time."""
        try:
            found, version = self.world.kube.list(kind, namespace, field=field_selector(only, kind))
        except NotFound:
            if kind != RAY_CLUSTER:  # those of KubeRay may come later
                raise
            self.world.absent.add(kind)
            return []
        if kind in self.world.absent and self._synced:
            self.stop("KubeRay is installed now, and has to be watched.")
        gone = self.world.cache.replace(kind, namespace, found, version)
        return [key_of(kind, obj, home) for obj in (*found, *gone)]

    def drain(self) -> None:
        """Reconciles what waits now, in this thread."""
        while (key := self._queue.get(timeout=0.0)) is not None:
            self._reconcile(key)

    def _work(self) -> None:
        while not self._stopping.is_set():
            key = self._queue.get(timeout=1.0)
            metrics.QUEUE_DEPTH.set(len(self._queue))
            if key is not None:
                self._reconcile(key)

    def _reconcile(self, key: Key) -> None:
        home, name = key
        what = "project" if name else "site"
        began = time.perf_counter()
        try:
            after = project.reconcile(self.world, home, name) if name else site.reconcile(self.world, home)
        except Exception as error:
            metrics.RECONCILE_ERRORS.labels(what=what).inc()
            seconds = self._queue.failed(key)
            known = isinstance(error, KoinonError)
            log.warning("%s %s/%s again in %.1f s: %s", what, home, name, seconds, error, exc_info=not known)
        else:
            self._queue.done(key, after=after)
        finally:
            metrics.RECONCILE_SECONDS.labels(what=what).observe(time.perf_counter() - began)

    def _resync_loop(self) -> None:
        wait = min(_AGAIN_SECONDS, self._settings.resync_seconds)
        while not self._stopping.wait(wait):
            try:
                self.resync()
                wait = _AGAIN_SECONDS if self.world.absent else self._settings.resync_seconds
            except KoinonError as error:
                log.warning("Not everything could be read anew: %s", error)
                wait = _START_SECONDS

    def _ask_loop(self) -> None:
        while not self._stopping.is_set():
            _survive("asking the agents", partial(self.world.agents.ask_all, lambda home: self._queue.add((home, ""))))
            self._stopping.wait(self._settings.agent_seconds)

    def _lookup_loop(self) -> None:
        while not self._stopping.is_set():
            self.world.lookup.wanted.wait(_LOOKUP_SECONDS)
            _survive("looking names up", partial(self.world.lookup.refresh, self._all_sites))

    def _all_sites(self) -> None:
        for home in self._settings.hospitals:
            self._queue.add((home, ""))


def _survive(what: str, step: Callable[[], object]) -> None:
    """One step of what nobody would start again if it failed."""
    try:
        step()
    except Exception:
        log.exception("%s failed, and is tried again.", what.capitalize())
