"""The hub as a researcher sees it: projects, runs and sites, by name."""

import builtins
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from koinon.client import manifests, settings
from koinon.client.http import Connection
from koinon.client.projects import Project
from koinon.client.runs import Run
from koinon.domain import errors, keys, wire


def connect(url: str | None = None, *, token: str | None = None, ca: str | Path | None = None) -> "Hub":
    """The hub that `koinon login` left (or KOINON_HUB and KOINON_TOKEN name); `url` and `token` take their place.

    `ca`: the PEM file of the authority that the hub's certificate is by, if not a public one (or KOINON_CA).

    Raises Unauthenticated without a login, Untrusted if the hub shows another key than it did at the login.
    """
    given = str(ca or os.environ.get("KOINON_CA", ""))
    login = settings.Login(hub=url, token=token or "") if url else settings.load_login()
    hub = Hub(Connection(login.hub, login.token, ca=Path(given) if given else login.authority))
    if login.signing and hub.about()["signing"] != login.signing:
        raise errors.Untrusted(
            f"The hub shows the key {keys.fingerprint(hub.about()['signing'])}, at the login it was "
            f"{keys.fingerprint(login.signing)}.",
            where=login.hub,
            todo="Ask its operator for the fingerprint. If it has changed for a good reason: koinon login",
        )
    return hub


class Hub:
    """One hub. Close it, or use it in a `with` statement, to give its connections back."""

    def __init__(self, connection: Connection, *, identity: Path | None = None) -> None:
        self.connection = connection
        self.identity = identity or settings.identity_path()
        self._about: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Hub({self.connection.url})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def about(self) -> dict[str, Any]:
        """Protocol, version, signing key, recipient and fingerprint. Raises Unsupported for another protocol."""
        if self._about is None:
            about = self.connection.get("/v1/hub")
            if about.get("protocol") != wire.PROTOCOL:
                raise errors.Unsupported(
                    f"The hub speaks protocol {about.get('protocol')}, this SDK {wire.PROTOCOL}.",
                    where=self.connection.url,
                    todo="Install the version of koinon that the hub's operator names.",
                )
            self._about = about
        return self._about

    def sites(self) -> list[dict[str, Any]]:
        """Every enrolled site: name, root, fingerprint, status and when it was last seen."""
        return rows(self.connection.get("/v1/sites"), "sites")

    def site(self, name: str) -> dict[str, Any]:
        """Raises NotFound."""
        found: dict[str, Any] = self.connection.get(f"/v1/sites/{quote(name, safe='')}")
        return found

    def create_project(
        self,
        name: str,
        *,
        contract: str | Path | Mapping[str, Any],
        code: str | Path | None = None,
        sites: Iterable[str] | None = None,
        purpose: str = "",
        **options: Any,
    ) -> Project:
        """Freezes a manifest and registers it: hospitals see it as pending until they grant it.

        `contract` is a YAML file or what such a file says. `code` is a folder with a `koinon.Model`; without it the
        audited template `tabular` trains. `sites` are all enrolled ones unless named. `options` as
        `koinon.client.manifests.build` takes them: metrics, cohorts, parameters, limits, protection, deadlines,
        recipients, follows. The same call again gives the same project.
        """
        manifest = manifests.build(self, name, contract=contract, code=code, sites=sites, purpose=purpose, **options)
        known = [p for p in self.projects() if p.name == name]
        for project in known:
            if project.manifest.model_copy(update={"created": manifest.created}) == manifest:
                return project
        if known:
            raise errors.Conflict(
                f"There is a project {name} with another manifest ({known[0].hash[:12]}).",
                where=f"project {name}",
                todo=f"A manifest never changes. Choose another name; follows={name!r} says what it continues.",
            )
        self.connection.post("/v1/projects", manifest.model_dump(mode="json"))
        return Project(self, manifest)

    def project(self, name: str) -> Project:
        """A project by its name, its hash or the start of its hash. Raises NotFound."""
        try:
            return Project.of(self, self.connection.get(f"/v1/projects/{quote(name, safe='')}"))
        except errors.NotFound:
            known = self.projects()
            found = [p for p in known if len(name) >= 4 and p.hash.startswith(name)]
            if len(found) == 1:
                return found[0]
            if found:
                raise errors.Conflict(f"{len(found)} projects begin with {name}.", todo="Type more of it.") from None
            listed = ", ".join(p.name for p in known) or "none yet"
            raise errors.NotFound(f"There is no project {name}.", todo=f"Projects of this hub: {listed}.") from None

    def projects(self) -> list[Project]:
        return [Project.of(self, row) for row in rows(self.connection.get("/v1/projects"), "projects")]

    def run(self, run: str) -> Run:
        """A run by its id or the start of its id. Raises NotFound."""
        try:
            return Run(self, self.connection.get(f"/v1/runs/{quote(run, safe='')}"))
        except (errors.NotFound, errors.Invalid):
            found = [r for r in self.runs(limit=1000) if r.id.startswith(run)]
            if len(found) == 1:
                return found[0]
            if found:
                raise errors.Conflict(f"{len(found)} runs begin with {run}.", todo="Type more of it.") from None
            raise errors.NotFound(f"There is no run {run}.", todo="koinon run list") from None

    def runs(
        self, *, project: str | None = None, state: str | None = None, limit: int | None = None
    ) -> builtins.list[Run]:
        """Runs, newest first."""
        project_hash = self.project(project).hash if project else None
        found = self.connection.get("/v1/runs", project=project_hash, state=state, limit=limit)
        return [Run(self, row) for row in rows(found, "runs")]

    def compare(self, runs: Iterable[str]) -> list[dict[str, Any]]:
        """One row a run: what differs among their parameters, and the metrics of their last model."""
        chosen = [self.run(run) for run in runs]
        names = sorted({name for run in chosen for name in run.parameters})
        varying = [n for n in names if len({str(run.parameters.get(n)) for run in chosen}) > 1]
        table = []
        for run in chosen:
            scored = run.metrics()
            last = scored[-1][1] if scored else {}
            row: dict[str, Any] = {"run": run.id, "state": run.state, "models": max((v for v, _ in scored), default=0)}
            row.update({name: run.parameters.get(name) for name in varying})
            row.update({name: values.get("mean") for name, values in last.items()})
            table.append(row)
        return table


def rows(value: Any, name: str) -> list[dict[str, Any]]:
    """A list that a hub sends bare or as the member `name` of an object."""
    found = value.get(name, []) if isinstance(value, dict) else value
    return list(found)
