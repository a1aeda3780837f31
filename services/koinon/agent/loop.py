"""The agent's loop: ask the hub what there is to do, do it, say how it went; watch grants and revocations meanwhile."""

import importlib.metadata
import shutil
import time
from threading import Thread
from typing import Any

from koinon.agent import joining, retention
from koinon.agent import round as rounds
from koinon.agent.hub import Polled
from koinon.agent.lanes import Lanes
from koinon.agent.logs import new_incident
from koinon.agent.policy import Refusal
from koinon.agent.projects import MAX_MANIFESTS, Project
from koinon.agent.reports import Reports
from koinon.agent.site import Site
from koinon.agent.trainer import Trainer
from koinon.agent.trainers import Trainers
from koinon.agent.warming import Warmer
from koinon.agent.watch import Watch
from koinon.domain.errors import KoinonError, Unauthenticated, Unavailable, Unsupported
from koinon.domain.grant import Grant, Revocation
from koinon.domain.run import Kind, Phase
from koinon.domain.wire import SiteStatus, Task

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_END_SECONDS = 10.0
_JOIN_SECONDS = 30.0
_LONGEST_WATCH = 3600.0  # in case the clock is set meanwhile
_DOING = {
    Phase.INIT: "building the first weights",
    Phase.KEYS: "training",
    Phase.SHARES: "sharing keys",
    Phase.MASKED: "masking and uploading",
    Phase.SURVIVORS: "signing the survivors",
    Phase.UNMASK: "releasing shares",
}


class Agent:
    """A running agent. `run` returns after `site.stop` was set; it leaves no process then."""

    def __init__(self, site: Site, *, walls: bool = True) -> None:
        self.site = site
        self.trainers = Trainers(site, walls=walls)
        self.lanes = Lanes(self._do)
        self._threads: list[Thread] = []
        self._told: set[str] = set()  # grants and revocations the hub has
        self._unwanted: set[str] = set()  # manifests that are not kept here
        self._reports = Reports(site, self.trainers)
        self.version = importlib.metadata.version("koinon")
        self.turned = time.monotonic()  # the loop's last turn
        self.trouble: str | None = None  # why the hub does not answer
        self.last_round: dict[str, Any] | None = None
        self._join_again = 0.0

    def run(self) -> None:
        site = self.site
        site.log.event("serving", site=site.name, hub=site.settings.hub, epoch=site.journal.epoch)
        if site.journal.restored:
            site.log.event("restored", text="The journal was restored from a backup; older rounds are refused.")
        self._forget_ended()
        retention.sweep(site)
        watch = Watch(site.folder.watched)
        site.book.reload()  # what came since it was first read, before the watch
        threads = {"poll": self._poll, "watch": lambda: self._watch(watch)}
        if site.settings.kubernetes is not None:
            threads["warm"] = Warmer(site, self.trainers, self.lanes).run
        self._threads = [Thread(target=work, name=name, daemon=True) for name, work in threads.items()]
        for thread in self._threads:
            thread.start()
        try:
            site.stop.wait()
        finally:
            site.stop.set()
            watch.close()
            self.trainers.close()
            self.lanes.close(_END_SECONDS)
            site.log.event("ended", site=site.name)

    @property
    def alive(self) -> bool:
        """Whether every thread that must never end goes on."""
        return all(thread.is_alive() for thread in self._threads)

    # what the hub wants

    def _poll(self) -> None:
        site, cursor, pause = self.site, 0, _FIRST_PAUSE
        while not site.stop.is_set():
            self.turned = time.monotonic()
            try:
                polled = site.hub.poll(cursor, self._status())
                cursor, pause, self.trouble = polled.cursor, _FIRST_PAUSE, None
                self._take(polled)
                continue
            except (Unauthenticated, Unsupported) as error:  # a clock that is off, an unknown protocol
                site.log.event("refused-by-hub", error=str(error), clock_offset=round(site.hub.offset, 1))
                pause, self.trouble = _LONGEST_PAUSE, str(error)
                if self._joined(error):
                    continue
            except Unavailable as error:
                site.log.event("hub-away", error=str(error))
                self.trouble = str(error)
            except Exception as error:
                site.log.failure("poll-failed", error, new_incident())
                pause = _LONGEST_PAUSE
            site.stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _joined(self, error: KoinonError) -> bool:
        """Whether this agent made itself known to a hub that did not know its key."""
        if not joining.may_join(self.site, error) or time.monotonic() < self._join_again:
            return False
        self._join_again = time.monotonic() + _JOIN_SECONDS
        try:
            return joining.join(self.site)
        except KoinonError as away:
            self.site.log.event("not-enrolled", error=str(away))
            self._join_again = 0.0 if isinstance(away, Unavailable) else self._join_again
            return False

    def _status(self) -> SiteStatus:
        busy = [f"{_doing(task)} round {task.opening.round} of {run}" for run, task in self.lanes.busy().items()]
        doing = "; ".join([*busy[:1], *([f"and {len(busy) - 1} more"] if busy[1:] else [])]) or "idle"
        free = shutil.disk_usage(self.site.folder.path).free
        return SiteStatus(version=self.version, doing=doing[:80], disk_free=free, clock=self.site.clock())

    def _take(self, polled: Polled) -> None:
        for task in polled.tasks:
            self.lanes.offer(task)
        self._tell_consents(polled.projects)
        self._learn(polled.projects)
        self._forget_ended()
        if polled.runs is not None:
            self._finish(set(polled.runs) | {task.opening.run for task in polled.tasks})

    def _finish(self, going_on: set[str]) -> None:
        """Erases what is kept of runs that are over."""
        busy = self.lanes.busy()
        for run in self.site.journal.unerased():
            if run not in going_on and run not in busy:
                rounds.finish(self.site, run)
                self.site.log.event("run-over", run=run)

    def _learn(self, projects: tuple[str, ...]) -> None:
        """Keeps the manifests that name this site, so that they can be read and granted offline."""
        for name in projects:
            if name not in self._unwanted and not self.site.book.has_manifest(name) and not self.site.book.full:
                self.turned = time.monotonic()
                try:
                    self.site.book.keep_manifest(name, self.site.hub.manifest(name, until=0.0))
                    self.site.log.event("project", project=name)
                except KoinonError as error:
                    if isinstance(error, Refusal) and len(self._unwanted) < MAX_MANIFESTS:
                        self._unwanted.add(name)
                    self.site.log.event("project-unreadable", project=name, error=str(error))

    def _tell_consents(self, projects: tuple[str, ...]) -> None:
        """Hands grants and revocations to the hub, each once, as far as it knows their project."""
        book = self.site.book
        documents: list[tuple[str, Grant | Revocation]] = [("grants", grant) for grant in book.grants.values()]
        documents += [("revocations", revocation) for revocation in book.revocations.values()]
        for what, document in documents:
            name = document.signature
            if name in self._told or document.manifest not in projects:
                continue
            try:
                self.site.hub.put(what, document.encode(), until=0.0)
                self.site.log.event(what.removesuffix("s"), project=document.manifest)
            except Unavailable:
                continue
            except KoinonError as error:
                self.site.log.event("consent-refused", project=document.manifest, error=str(error))
            self._told.add(name)

    # what the hospital wants

    def _watch(self, watch: Watch) -> None:
        while watch.wait(self._until_expiry()):
            self.reload()

    def _until_expiry(self) -> float:
        """Seconds to the end of the grant that ends next."""
        now = self.site.clock()
        left = [grant.expires - now for grant in self.site.book.grants.values() if grant.expires > now]
        return min([*left, _LONGEST_WATCH]) + 0.01  # the two clocks are not quite one

    def reload(self) -> None:
        """Takes up grants and revocations; a project that may not run any more loses its trainer at once."""
        site = self.site
        site.book.reload()
        for path, why in site.book.problems.items():
            site.log.event("unreadable", path=path, error=why)
        for name in self.trainers.running():
            try:
                site.book.project(name, site.clock())
            except Refusal as refusal:
                self.trainers.end(name)
                site.log.event("trainer-ended", project=name, code=refusal.code)
        self._forget_ended()
        self._tell_consents(tuple(site.book.grants))

    # one task

    def _do(self, task: Task) -> None:
        """Does a task; whatever goes wrong becomes a line in the log, and a trouble for the hub."""
        opening, site, admitted = task.opening, self.site, False
        began, result = time.monotonic(), "failed"
        try:
            project = rounds.admit(site, task)
            admitted = True
            if task.phase in (Phase.INIT, Phase.KEYS):
                trainer = self._trainer(project, task)
                work = rounds.build if opening.kind is Kind.INIT else rounds.train
                work(site, project, trainer, task)
            else:
                _STEPS[task.phase](site, project, task)
            result = "done"
        except Unavailable as error:  # hub, disk or cluster is away: the task is still on the hub's board
            result = "put_off"
            site.log.event("put-off", run=opening.run, round=opening.round, phase=task.phase, error=str(error))
            self._forget_ended(opening.run)
        except Exception as error:
            if not site.stop.is_set():
                result = self._reports.tell(task, error, admitted)
                self._forget_ended(opening.run)
        if not site.stop.is_set():
            self._count(task, result, time.monotonic() - began)

    def _count(self, task: Task, result: str, seconds: float) -> None:
        opening, meter = task.opening, self.site.meter
        meter.phases.labels(task.phase, result).inc()
        meter.seconds.labels(task.phase).observe(seconds)
        last = Phase.INIT if opening.kind is Kind.INIT else Phase.UNMASK
        if result == "done" and task.phase is last:
            meter.rounds.labels(opening.kind).inc()
            self.last_round = {
                "run": opening.run,
                "project": opening.manifest,
                "round": opening.round,
                "kind": opening.kind,
                "time": self.site.clock(),
            }

    def _forget_ended(self, run: str = "") -> None:
        """Erases what is kept of runs without a grant. `run`: the one whose lane calls, which so is not in its way."""
        if not self.site.stop.is_set():
            try:
                retention.forget_ended(self.site, self.lanes.busy().keys() - {run})
            except Unavailable as error:  # the journal's disk is full: at the next change, or start
                self.site.log.event("not-erased", error=str(error))

    def _trainer(self, project: Project, task: Task) -> Trainer:
        """The project's trainer, which has started nothing yet if the grant ended while its package came."""
        trainer = self.trainers.get(project, until=task.deadline)
        try:
            rounds.require_grant(self.site, task.opening)
        except Refusal:
            self.trainers.end(project.hash)
            raise
        return trainer


_STEPS = {
    Phase.SHARES: rounds.share,
    Phase.MASKED: rounds.mask,
    Phase.SURVIVORS: rounds.vote,
    Phase.UNMASK: rounds.release,
}


def _doing(task: Task) -> str:
    scores = task.phase is Phase.KEYS and task.opening.kind is Kind.EVALUATE
    return "scoring in" if scores else _DOING[task.phase] + " in"
