"""The agent's loop: ask the hub what there is to do, do it, say how it went; watch grants and revocations meanwhile."""

import importlib.metadata
import shutil
from threading import Thread

from koinon.agent import packages, retention, troubles
from koinon.agent import round as rounds
from koinon.agent.hub import Polled
from koinon.agent.lanes import Lanes
from koinon.agent.logs import new_incident
from koinon.agent.policy import Refusal
from koinon.agent.projects import MAX_MANIFESTS, Project
from koinon.agent.site import Site
from koinon.agent.trainer import Trainer
from koinon.agent.trainers import Trainers
from koinon.agent.troubles import TrainerTrouble, Vocabulary
from koinon.agent.watch import Watch
from koinon.domain.errors import KoinonError, Unauthenticated, Unavailable, Unsupported
from koinon.domain.grant import Grant, Revocation
from koinon.domain.run import Kind, Phase
from koinon.domain.wire import SiteReport, SiteStatus, Task, Trouble

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_END_SECONDS = 10.0
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
        self._lanes = Lanes(self._do)
        self._told: set[str] = set()  # grants and revocations the hub has
        self._unwanted: set[str] = set()  # manifests that are not kept here
        self._lines: dict[str, dict[str, int]] = {}  # package → file → number of lines
        self._version = importlib.metadata.version("koinon")

    def run(self) -> None:
        site = self.site
        site.log.event("serving", site=site.name, hub=site.settings.hub, epoch=site.journal.epoch)
        if site.journal.restored:
            site.log.event("restored", text="The journal was restored from a backup; older rounds are refused.")
        self._forget_ended()
        retention.sweep(site)
        watch = Watch([site.folder.grants, site.folder.revocations])
        threads = [
            Thread(target=self._poll, name="poll", daemon=True),
            Thread(target=self._watch, args=(watch,), name="watch", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            site.stop.wait()
        finally:
            site.stop.set()
            watch.close()
            self.trainers.close()
            self._lanes.close(_END_SECONDS)
            site.log.event("ended", site=site.name)

    # what the hub wants

    def _poll(self) -> None:
        site, cursor, pause = self.site, 0, _FIRST_PAUSE
        while not site.stop.is_set():
            try:
                polled = site.hub.poll(cursor, self._status())
                cursor, pause = polled.cursor, _FIRST_PAUSE
                self._take(polled)
                continue
            except (Unauthenticated, Unsupported) as error:  # a clock that is off, an unknown protocol
                site.log.event("refused-by-hub", error=str(error), clock_offset=round(site.hub.offset, 1))
                pause = _LONGEST_PAUSE
            except Unavailable as error:
                site.log.event("hub-away", error=str(error))
            except Exception as error:
                site.log.failure("poll-failed", error, new_incident())
                pause = _LONGEST_PAUSE
            site.stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _status(self) -> SiteStatus:
        busy = [f"{_doing(task)} round {task.opening.round} of {run}" for run, task in self._lanes.busy().items()]
        doing = "; ".join([*busy[:1], *([f"and {len(busy) - 1} more"] if busy[1:] else [])]) or "idle"
        free = shutil.disk_usage(self.site.folder.path).free
        return SiteStatus(version=self._version, doing=doing[:80], disk_free=free, clock=self.site.clock())

    def _take(self, polled: Polled) -> None:
        for task in polled.tasks:
            self._lanes.offer(task)
        self._tell_consents(polled.projects)
        self._learn(polled.projects)
        self._forget_ended()
        if polled.runs is not None:
            self._finish(set(polled.runs) | {task.opening.run for task in polled.tasks})

    def _finish(self, going_on: set[str]) -> None:
        """Erases what is kept of runs that are over."""
        busy = self._lanes.busy()
        for run in self.site.journal.unerased():
            if run not in going_on and run not in busy:
                rounds.finish(self.site, run)
                self.site.log.event("run-over", run=run)

    def _learn(self, projects: tuple[str, ...]) -> None:
        """Keeps the manifests that name this site, so that they can be read and granted offline."""
        for name in projects:
            if name not in self._unwanted and not self.site.book.has_manifest(name) and not self.site.book.full:
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
        try:
            project = rounds.admit(site, task)
            admitted = True
            if task.phase in (Phase.INIT, Phase.KEYS):
                trainer = self._trainer(project, task)
                work = rounds.build if opening.kind is Kind.INIT else rounds.train
                work(site, project, trainer, task)
            else:
                _STEPS[task.phase](site, project, task)
        except Unavailable as error:  # the hub or the disk is away: the task is still on the hub's board
            site.log.event("put-off", run=opening.run, round=opening.round, phase=task.phase, error=str(error))
            self._forget_ended(opening.run)
        except Exception as error:
            if not site.stop.is_set():
                self._report(task, self._cause(task, error), admitted)
                self._forget_ended(opening.run)

    def _forget_ended(self, run: str = "") -> None:
        """Erases what is kept of runs without a grant. `run`: the one whose lane calls, which so is not in its way."""
        if not self.site.stop.is_set():
            try:
                retention.forget_ended(self.site, self._lanes.busy().keys() - {run})
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

    def _cause(self, task: Task, error: Exception) -> Exception:
        """A trainer killed because its grant ended is a refusal, not a failure."""
        if isinstance(error, TrainerTrouble):
            try:
                self.site.book.project(task.opening.manifest, self.site.clock())
            except Refusal as refusal:
                return refusal
        return error

    def _trouble(self, task: Task, error: Exception, admitted: bool, incident: str) -> Trouble:
        """What crosses of `error`; only the code once research code has failed often in this run."""
        try:
            trouble = troubles.describe(error, self._vocabulary(task) if admitted else None, incident)
            few = (
                not troubles.of_research_code(error)
                or self.site.journal.count_trouble(task.opening.run) <= troubles.PER_RUN
            )
        except KoinonError:  # the package is unreadable, or the journal
            trouble, few = troubles.describe(error, None, incident), False
        return trouble if few else troubles.bare(trouble)

    def _vocabulary(self, task: Task) -> Vocabulary:
        manifest = self.site.book.manifest(task.opening.manifest)
        name = manifest.model.package
        package = self.site.folder.agent / "packages" / f"{name}.zip"
        if name is not None and name not in self._lines and package.exists():
            self._lines[name] = packages.lines(package)
        return troubles.vocabulary(manifest, task.opening.parameters, self._lines.get(name or "", {}))

    def _report(self, task: Task, error: Exception, admitted: bool) -> None:
        site, opening, incident = self.site, task.opening, new_incident()
        trouble = self._trouble(task, error, admitted, incident)
        where = {"run": opening.run, "round": opening.round, "attempt": opening.attempt, "phase": task.phase}
        if isinstance(error, TrainerTrouble):
            trainer = self.trainers.known(opening.manifest)
            told = trainer.lines.of_incident(troubles.incident_of(error)) if trainer else ""
            text = told or f"{type(error).__name__}: {error}"
            site.log.event("trouble", incident=incident, code=trouble.code, text=text, **where)
        else:
            site.log.failure("trouble", error, incident, code=trouble.code, **where)
        try:
            report = SiteReport(opening=opening.digest(), site=site.name, trouble=trouble)
            site.hub.report(opening, report, until=task.deadline)
        except KoinonError as unsent:
            site.log.event("trouble-unsent", incident=incident, error=str(unsent))


_STEPS = {
    Phase.SHARES: rounds.share,
    Phase.MASKED: rounds.mask,
    Phase.SURVIVORS: rounds.vote,
    Phase.UNMASK: rounds.release,
}


def _doing(task: Task) -> str:
    scores = task.phase is Phase.KEYS and task.opening.kind is Kind.EVALUATE
    return "scoring in" if scores else _DOING[task.phase] + " in"
