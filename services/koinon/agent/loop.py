"""The agent's loop: ask the hub what there is to do, do it, say how it went; watch grants and revocations meanwhile."""

import importlib.metadata
import shutil
import zipfile
from threading import Thread

from koinon.agent import round as rounds
from koinon.agent import troubles
from koinon.agent.hub import Polled
from koinon.agent.lanes import Lanes
from koinon.agent.logs import new_incident
from koinon.agent.policy import Refusal
from koinon.agent.site import Site
from koinon.agent.trainers import Trainers
from koinon.agent.troubles import TrainerTrouble, Vocabulary
from koinon.agent.watch import Watch
from koinon.domain.errors import KoinonError, Unauthenticated, Unavailable, Unsupported
from koinon.domain.grant import Grant, Revocation
from koinon.domain.run import Kind, Phase
from koinon.domain.wire import SiteReport, SiteStatus, Task

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_END_SECONDS = 10.0
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
        self._version = importlib.metadata.version("koinon")

    def run(self) -> None:
        site = self.site
        site.log.event("serving", site=site.name, hub=site.settings.hub, epoch=site.journal.epoch)
        if site.journal.restored:
            site.log.event("restored", text="The journal was restored from a backup; older rounds are refused.")
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
        doing = [f"{_doing(task)} round {task.opening.round} of {run}" for run, task in self._lanes.busy().items()]
        free = shutil.disk_usage(self.site.folder.path).free
        return SiteStatus(
            version=self._version, doing=("; ".join(doing) or "idle")[:80], disk_free=free, clock=self.site.clock()
        )

    def _take(self, polled: Polled) -> None:
        for task in polled.tasks:
            self._lanes.offer(task)
        self._tell_consents(polled.projects)
        self._learn(polled.projects)
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
            if not self.site.book.has_manifest(name):
                try:
                    self.site.book.keep_manifest(name, self.site.hub.manifest(name, until=0.0))
                    self.site.log.event("project", project=name)
                except KoinonError as error:
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
        while watch.wait():
            self.reload()

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
        self._tell_consents(tuple(site.book.grants))

    # one task

    def _do(self, task: Task) -> None:
        """Does a task; whatever goes wrong becomes a line in the log, and a trouble for the hub."""
        opening, words = task.opening, None
        site = self.site
        try:
            project = rounds.admit(site, task)
            words = self._vocabulary(task)
            if task.phase in (Phase.INIT, Phase.KEYS):
                trainer = self.trainers.get(project, until=task.deadline)
                work = rounds.build if opening.kind is Kind.INIT else rounds.train
                work(site, project, trainer, task)
            else:
                _STEPS[task.phase](site, project, task)
        except Unavailable as error:  # the hub or the disk is away: the task is still on the hub's board
            site.log.event("put-off", run=opening.run, round=opening.round, phase=task.phase, error=str(error))
        except Exception as error:
            if not site.stop.is_set():
                self._report(task, self._cause(task, error), words)

    def _cause(self, task: Task, error: Exception) -> Exception:
        """A trainer killed because its grant ended is a refusal, not a failure."""
        if isinstance(error, TrainerTrouble):
            try:
                self.site.book.project(task.opening.manifest, self.site.clock())
            except Refusal as refusal:
                return refusal
        return error

    def _vocabulary(self, task: Task) -> Vocabulary:
        manifest = self.site.book.manifest(task.opening.manifest)
        files: list[str] = []
        package = self.site.folder.agent / "packages" / f"{manifest.model.package}.zip"
        if manifest.model.package and package.exists():
            with zipfile.ZipFile(package) as archive:
                files = archive.namelist()
        return troubles.vocabulary(manifest, task.opening.parameters, files)

    def _report(self, task: Task, error: Exception, words: Vocabulary | None) -> None:
        site, opening, incident = self.site, task.opening, new_incident()
        trouble = troubles.describe(error, words, incident)
        where = {"run": opening.run, "round": opening.round, "attempt": opening.attempt, "phase": task.phase}
        if isinstance(error, TrainerTrouble):
            trainer = self.trainers.known(opening.manifest)
            text = trainer.lines.of_incident(troubles.incident_of(error)) if trainer else ""
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
