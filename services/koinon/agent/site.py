"""What all parts of a running agent share: who this site is, its keys, and where its things are."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from koinon.agent import config, setup
from koinon.agent.config import Folder, Settings
from koinon.agent.hub import Hub
from koinon.agent.journal import Journal
from koinon.agent.logs import Log
from koinon.agent.marker import Marker
from koinon.agent.meter import Meter
from koinon.agent.projects import Book
from koinon.artifacts import keyfiles
from koinon.artifacts.keyfiles import Identity
from koinon.domain.errors import Untrusted
from koinon.domain.keys import Certificate, SigningKey

_BLOCK = 2**20


@dataclass(frozen=True)
class Site:
    """A site that serves. The root key is not among its keys."""

    folder: Folder
    settings: Settings
    certificate: Certificate
    signer: SigningKey
    identities: dict[str, Identity]  # recipient → identity; older ones still open what was sealed to them
    journal: Journal
    book: Book
    hub: Hub
    log: Log
    stop: Event
    clock: Callable[[], float]
    meter: Meter = field(default_factory=Meter)

    @property
    def name(self) -> str:
        return self.settings.name

    def work(self, run: str) -> Path:
        """The folder for a run's files."""
        path = self.folder.work / run
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def close(self) -> None:
        self.hub.close()
        self.journal.close()
        self.log.close()


def load(path: Path, *, stop: Event, clock: Callable[[], float], settings_file: Path | None = None) -> Site:
    """Opens a site's folder. Raises NotFound if it has no keys, Conflict if another agent serves it."""
    folder, settings = config.load(path, settings_file)
    config.require_allowed(settings)
    certificate, signer = setup.read_certificate(folder), keyfiles.read_signing_key(folder.signing_key)
    current = keyfiles.read_identity(folder.recipient_key)
    if (certificate.signing, certificate.recipient) != (signer.public, current.recipient):
        raise Untrusted(
            "The keys are not those of the certificate.", where=str(folder.keys), todo="koinon site init --renew"
        )
    older = [keyfiles.read_identity(file) for file in sorted(folder.keys.glob("recipient-*.key"))]
    folder.make()
    journal = Journal(folder.agent, Marker(folder.marker))
    return Site(
        folder=folder,
        settings=settings,
        certificate=certificate,
        signer=signer,
        identities={identity.recipient: identity for identity in [*older, current]},
        journal=journal,
        book=Book(folder, settings.name),
        hub=Hub(
            settings.hub,
            settings.name,
            signer,
            stop=stop,
            clock=clock,
            authority=settings.authority,
            proxy=settings.proxy,
        ),
        log=Log(folder.log / "agent.log", stdout=settings.kubernetes is not None),
        stop=stop,
        clock=clock,
    )


def sha256_of(path: Path) -> str:
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()


def remove_run(folder: Folder, run: str) -> None:
    shutil.rmtree(folder.work / run, ignore_errors=True)
