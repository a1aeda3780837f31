"""The trainers of a site: one per granted project, made when first needed, ended with its grant or with the agent."""

from pathlib import Path
from threading import RLock
from typing import Any

from koinon.agent import sandbox
from koinon.agent.cluster import Cluster
from koinon.agent.embedded import Embedded
from koinon.agent.place import Place, Work
from koinon.agent.policy import Refusal
from koinon.agent.projects import Project
from koinon.agent.site import Site
from koinon.agent.trainer import Trainer
from koinon.domain.errors import NotFound, Unavailable
from koinon.domain.manifest import MAX_PACKAGE

MAX_PARTS = 64  # as the trainer


class Trainers:
    """Thread-safe. After `close` none is made any more."""

    def __init__(self, site: Site, *, walls: bool = True) -> None:
        self._site = site
        self._walls = walls
        self._lock = RLock()
        self._made: dict[str, Trainer] = {}
        self._closed = False

    def get(self, project: Project, *, until: float) -> Trainer:
        """The project's trainer; its package is fetched and checked by its hash. Raises Refusal without its data."""
        work = self._work(project, self.package(project, until=until))
        with self._lock:
            if self._closed:
                raise Unavailable("The agent is ending.")
            known = self._made.get(project.hash)
            if known is not None and not known.stopped and known.work == work:
                return known
            if known is not None:  # a new grant, with other data or resources
                known.stop()
            made = self._made[project.hash] = Trainer(work, self._place(work), self._site.log, self._site.meter)
            return made

    def _place(self, work: Work) -> Place:
        given, folder = self._site.settings.kubernetes, self._site.folder.path
        if given is not None:
            return Cluster(work, given, self._site.log)
        # The sandbox shows no place but the system's and the interpreter's; these stay hidden even within them. The
        # site's own folders are named apart, for a data set that encloses them.
        hide = (*sandbox.around(folder), *folder.iterdir(), Path.home())
        return Embedded(work, self._site.log, hide=hide, walls=self._walls)

    def package(self, project: Project, *, until: float) -> Path | None:
        """The researcher's code as a file that has the hash of the manifest; None for a template."""
        name = project.manifest.model.package
        if name is None:
            return None
        folder = self._site.folder.agent / "packages"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{name}.zip"
        self._site.hub.download(f"/v1/packages/{name}", path, name, limit=MAX_PACKAGE, until=until)
        return path

    def _work(self, project: Project, package: Path | None) -> Work:
        manifest, grant = project.manifest, project.grant
        try:
            dataset = self._site.settings.dataset(grant.dataset, self._site.folder)
        except NotFound as error:
            raise Refusal("no_dataset", error.what, todo=error.todo) from None
        if self._site.settings.kubernetes is None and not dataset.exists():
            raise Refusal("no_dataset", f'The data set "{grant.dataset}" is not where site.yaml says.')
        body: dict[str, Any] = {
            "project": project.hash,
            "model": manifest.model.model_dump(mode="json"),
            "package": manifest.model.package,
            "contract": manifest.contract.model_dump(mode="json"),
            "cohorts": {name: [c.model_dump() for c in terms] for name, terms in manifest.cohorts.items()},
            "dataset": str(dataset),
            "metrics": list(manifest.metrics),
            "parts": min(MAX_PARTS, max(1, grant.resources.max_workers)),
        }
        return Work(project.hash, body, dataset, package, grant.resources)

    def known(self, project: str) -> Trainer | None:
        with self._lock:
            return self._made.get(project)

    def end(self, project: str) -> bool:
        """Kills the project's trainer. True if there was one."""
        with self._lock:
            known = self._made.pop(project, None)
        if known is not None:
            known.stop()
        return known is not None

    def running(self) -> list[str]:
        with self._lock:
            return list(self._made)

    def states(self) -> dict[str, str]:
        """Per project away, starting or ready."""
        with self._lock:
            return {project: trainer.state for project, trainer in self._made.items()}

    def close(self) -> None:
        with self._lock:
            self._closed = True
            made, self._made = list(self._made.values()), {}
        for trainer in made:
            trainer.leave()
