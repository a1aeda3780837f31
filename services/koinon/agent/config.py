"""A site's folder: what lies where, and `site.yaml`.

In Kubernetes (`site.yaml` has a section `kubernetes`) only state is in the folder: site.yaml, the agent's keys and the
consents are mounted elsewhere, read-only, and swapped as a whole when they change.

root/        root.key -- the hospital's root key; kept offline in real life, and not read by the agent
agent/       signing.key, recipient.key, certificate.json, journal.sqlite, work/ -- the agent's own
marker/      two files in turn -- epoch and sequence, outside the journal's backup (see `marker`)
manifests/   <hash>.json -- manifests this site has seen
grants/      <hash>.json -- this site's grants; the agent takes up what appears here
revocations/ <hash>.json -- likewise; a revocation ends the project's trainer
log/         agent.log -- one line of JSON an event
site.yaml    name, hub, datasets
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from pydantic import Field

from koinon.agent.marker import write_durable
from koinon.domain.contract import read_yaml
from koinon.domain.errors import Invalid, NotFound, Refused
from koinon.domain.ids import Name
from koinon.domain.keys import Wire
from koinon.domain.loopback import is_loopback


@dataclass(frozen=True)
class Consents:
    """The files of grants and revocations at one moment, by the hash of their manifest."""

    grants: dict[str, Path]
    revocations: dict[str, Path]
    version: Path | None = None  # a mount's folder of that moment


@dataclass(frozen=True)
class Folder:
    """Paths within a site's folder; `mounted` are those that Kubernetes has put elsewhere."""

    path: Path
    mounted: "Kubernetes | None" = None

    @property
    def root_key(self) -> Path:
        return self.path / "root" / "root.key"

    @property
    def agent(self) -> Path:
        return self.path / "agent"

    @property
    def keys(self) -> Path:
        """The folder of the agent's own keys; beside them, after a renewal, those of former epochs."""
        return self.agent if self.mounted is None else Path(self.mounted.keys)

    @property
    def signing_key(self) -> Path:
        return self.keys / "signing.key"

    @property
    def recipient_key(self) -> Path:
        return self.keys / "recipient.key"

    @property
    def certificate(self) -> Path:
        return self.keys / "certificate.json"

    @property
    def root_public(self) -> Path:
        """The root's public key in hex, for an agent that enrols itself."""
        return self.keys / "root.pub"

    @property
    def work(self) -> Path:
        return self.agent / "work"

    @property
    def marker(self) -> Path:
        return self.path / "marker"

    @property
    def manifests(self) -> Path:
        return self.path / "manifests"

    @property
    def grants(self) -> Path:
        return self.path / "grants"

    @property
    def revocations(self) -> Path:
        return self.path / "revocations"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def settings(self) -> Path:
        return self.path / "site.yaml"

    def make(self) -> None:
        """Creates what is missing, for the owner alone."""
        own = [self.agent, self.work, self.marker, self.log, self.manifests, self.revocations]
        if self.mounted is None:
            own += [self.root_key.parent, self.grants]
        for path in own:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def watched(self) -> list[Path]:
        """The folders in which consents appear."""
        return [self.grants, self.revocations] if self.mounted is None else [Path(self.mounted.consents)]

    def consents(self) -> Consents:
        """What lies there now. A mount is read through its link, so that all files are of one moment."""
        if self.mounted is None:
            return Consents(_json(self.grants), _json(self.revocations))
        version = present(Path(self.mounted.consents))
        return Consents(_json(version, "grants."), _json(version, "revocations."), version)

    def kept_revocations(self) -> dict[str, Path]:
        """Those that were mounted once, kept with the state."""
        return _json(self.revocations)


def _json(folder: Path, prefix: str = "") -> dict[str, Path]:
    """The files `<prefix><name>.json`, by name. None in a folder that a swap has just removed."""
    try:
        found = {path.stem.removeprefix(prefix): path for path in sorted(folder.glob(f"{prefix}*.json"))}
    except FileNotFoundError:
        return {}
    return {name: path for name, path in found.items() if not name.startswith(".")}


def present(folder: Path) -> Path:
    """Where the files of a mounted ConfigMap or Secret are at this moment: behind a link that is swapped atomically."""
    return (folder / "..data").resolve() if (folder / "..data").is_symlink() else folder


class Kubernetes(Wire):
    """How the chart lays a site out. `head`: the Service of a project's Ray head, {project} the hash's first 12 digits.

    The other defaults are where the chart mounts its volumes; `invitation` need not be there.
    """

    work_namespace: Name
    keys: str = "/etc/koinon/keys"
    consents: str = "/etc/koinon/consents"
    ray_secret: str = "/etc/koinon/ray/secret"
    invitation: str = "/etc/koinon/invitation/token"
    head: str = "p-{project}-head.{namespace}.svc"
    jobs_port: int = Field(default=8265, ge=1, le=65_535)
    trainer_port: int = Field(default=8471, ge=1, le=65_535)
    status: str = "0.0.0.0:8472"

    def host(self, project: str) -> str:
        """The host of the project's head."""
        return self.head.replace("{project}", project[:12]).replace("{namespace}", self.work_namespace)


class Settings(Wire):
    """`site.yaml`. `datasets`: name → path, absolute or relative to the site's folder; in Kubernetes as Ray's pods
    see it. `hub_ca`: a PEM file, then the only authority trusted for the hub; `proxy`: for the hub alone."""

    name: Name
    hub: str
    hub_ca: str | None = None
    proxy: str | None = None
    datasets: dict[Name, str] = Field(default_factory=dict)
    kubernetes: Kubernetes | None = None

    @property
    def authority(self) -> Path | None:
        return None if self.hub_ca is None else Path(self.hub_ca)

    def dataset(self, name: str, folder: Folder) -> Path:
        """The path of a declared data set. Raises NotFound."""
        if name not in self.datasets:
            known = ", ".join(sorted(self.datasets)) or "none"
            raise NotFound(f'There is no data set "{name}".', where="site.yaml: datasets", todo=f"Declared: {known}.")
        if self.kubernetes is not None:
            return Path(self.datasets[name])
        return (folder.path / self.datasets[name]).resolve()


def load(path: Path, file: Path | None = None) -> tuple[Folder, Settings]:
    """A site's folder and its settings, from `file` if that is elsewhere. Raises as `read`."""
    settings = read(path, file)
    return Folder(path.resolve(), settings.kubernetes), settings


def read(folder: Path, file: Path | None = None) -> Settings:
    """Raises NotFound, or Invalid that names the field."""
    path = file or Folder(folder).settings
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound("This is not a site's folder.", where=str(path), todo="koinon site init makes one.") from None
    return Settings.of(read_yaml(text, where="site.yaml"), where="site.yaml")


def write(folder: Path, settings: Settings) -> None:
    text = yaml.safe_dump(settings.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True)
    write_durable(Folder(folder).settings, text.encode(), mode=0o600)


def require_allowed(settings: Settings) -> None:
    """Raises Refused for a hub that a site of this form does not serve, Invalid for what is no hub's address."""
    require_loopback(settings.hub, behind_walls=settings.kubernetes is not None)


def require_loopback(hub: str, *, behind_walls: bool = False) -> None:
    """Raises Refused unless `hub` is on this machine: embedded, a site has not the walls that a network needs.

    `behind_walls`: in Kubernetes, where the chart builds them, an https address anywhere will do.
    """
    parts = urlsplit(hub)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(
            f'"{hub}" is not the address of a hub.', where="site.yaml: hub", todo="Like http://127.0.0.1:8470"
        )
    if is_loopback(parts.hostname) or (behind_walls and parts.scheme == "https"):
        return
    if behind_walls:
        raise Refused("A hub on the network is asked over https only.", where="site.yaml: hub", todo="Use https://.")
    raise Refused(
        f"An embedded site serves only a hub on this machine, not {parts.hostname}.",
        where="site.yaml: hub",
        todo="For hospitals on a network, install the site with its chart, which builds the walls.",
    )
