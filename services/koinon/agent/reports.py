"""What is told of a task that went wrong: all of it to the hospital's log, what may cross to the hub."""

from koinon.agent import packages, troubles
from koinon.agent.logs import new_incident
from koinon.agent.policy import Refusal
from koinon.agent.site import Site
from koinon.agent.trainers import Trainers
from koinon.agent.troubles import TrainerTrouble, Vocabulary
from koinon.domain.errors import KoinonError
from koinon.domain.wire import SiteReport, Task, Trouble


class Reports:
    """Thread-safe."""

    def __init__(self, site: Site, trainers: Trainers) -> None:
        self._site = site
        self._trainers = trainers
        self._lines: dict[str, dict[str, int]] = {}  # package → file → number of lines

    def tell(self, task: Task, error: Exception, admitted: bool) -> str:
        """Logs `error` and sends what may cross. `admitted`: the manifest allows the task. refused or failed."""
        error = self._cause(task, error)
        site, opening, incident = self._site, task.opening, new_incident()
        trouble = self._trouble(task, error, admitted, incident)
        where = {"run": opening.run, "round": opening.round, "attempt": opening.attempt, "phase": task.phase}
        if isinstance(error, TrainerTrouble):
            trainer = self._trainers.known(opening.manifest)
            told = trainer.told(troubles.incident_of(error)) if trainer else ""
            text = told or f"{type(error).__name__}: {error}"
            site.log.event("trouble", incident=incident, code=trouble.code, text=text, **where)
        else:
            site.log.failure("trouble", error, incident, code=trouble.code, **where)
        try:
            report = SiteReport(opening=opening.digest(), site=site.name, trouble=trouble)
            site.hub.report(opening, report, until=task.deadline)
        except KoinonError as unsent:
            site.log.event("trouble-unsent", incident=incident, error=str(unsent))
        if not isinstance(error, Refusal):
            return "failed"
        site.meter.refusals.labels(error.code).inc()
        return "refused"

    def _cause(self, task: Task, error: Exception) -> Exception:
        """A trainer killed because its grant ended is a refusal, not a failure."""
        if isinstance(error, TrainerTrouble):
            try:
                self._site.book.project(task.opening.manifest, self._site.clock())
            except Refusal as refusal:
                return refusal
        return error

    def _trouble(self, task: Task, error: Exception, admitted: bool, incident: str) -> Trouble:
        """What crosses of `error`; only the code once research code has failed often in this run."""
        try:
            trouble = troubles.describe(error, self._vocabulary(task) if admitted else None, incident)
            few = (
                not troubles.of_research_code(error)
                or self._site.journal.count_trouble(task.opening.run) <= troubles.PER_RUN
            )
        except KoinonError:  # the package is unreadable, or the journal
            trouble, few = troubles.describe(error, None, incident), False
        return trouble if few else troubles.bare(trouble)

    def _vocabulary(self, task: Task) -> Vocabulary:
        manifest = self._site.book.manifest(task.opening.manifest)
        name = manifest.model.package
        package = self._site.folder.agent / "packages" / f"{name}.zip"
        if name is not None and name not in self._lines and package.exists():
            self._lines[name] = packages.lines(package)
        return troubles.vocabulary(manifest, task.opening.parameters, self._lines.get(name or "", {}))
