"""A site's folder: what lies where, and `site.yaml`.

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
class Folder:
    """Paths within a site's folder."""

    path: Path

    @property
    def root_key(self) -> Path:
        return self.path / "root" / "root.key"

    @property
    def agent(self) -> Path:
        return self.path / "agent"

    @property
    def signing_key(self) -> Path:
        return self.agent / "signing.key"

    @property
    def recipient_key(self) -> Path:
        return self.agent / "recipient.key"

    @property
    def certificate(self) -> Path:
        return self.agent / "certificate.json"

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
        own = (self.root_key.parent, self.agent, self.work, self.marker, self.log)
        for path in (*own, self.manifests, self.grants, self.revocations):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


class Settings(Wire):
    """`site.yaml`. `datasets`: name → path, absolute or relative to the site's folder."""

    name: Name
    hub: str
    datasets: dict[Name, str] = Field(default_factory=dict)

    def dataset(self, name: str, folder: Folder) -> Path:
        """The path of a declared data set. Raises NotFound."""
        if name not in self.datasets:
            known = ", ".join(sorted(self.datasets)) or "none"
            raise NotFound(f'There is no data set "{name}".', where="site.yaml: datasets", todo=f"Declared: {known}.")
        return (folder.path / self.datasets[name]).resolve()


def read(folder: Path) -> Settings:
    """Raises NotFound, or Invalid that names the field."""
    path = Folder(folder).settings
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound("This is not a site's folder.", where=str(path), todo="koinon site init makes one.") from None
    return Settings.of(read_yaml(text, where="site.yaml"), where="site.yaml")


def write(folder: Path, settings: Settings) -> None:
    text = yaml.safe_dump(settings.model_dump(), sort_keys=False, allow_unicode=True)
    write_durable(Folder(folder).settings, text.encode(), mode=0o600)


def require_loopback(hub: str) -> None:
    """Raises Refused unless `hub` is on this machine: embedded, a site has not the walls that a network needs."""
    parts = urlsplit(hub)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(
            f'"{hub}" is not the address of a hub.', where="site.yaml: hub", todo="Like http://127.0.0.1:8470"
        )
    if not is_loopback(parts.hostname):
        raise Refused(
            f"An embedded site serves only a hub on this machine, not {parts.hostname}.",
            where="site.yaml: hub",
            todo="For hospitals on a network, install the site with its chart, which builds the walls.",
        )
