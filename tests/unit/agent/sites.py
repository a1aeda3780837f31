"""A site of the test manifest, without a hub that answers."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

from koinon.agent.config import Folder, Settings
from koinon.agent.hub import Hub
from koinon.agent.journal import Journal
from koinon.agent.logs import Log
from koinon.agent.marker import Marker
from koinon.agent.projects import Book
from koinon.agent.site import Site
from koinon.domain.keys import Certificate, SigningKey
from tests.unit.agent.openings import NOW, SITE
from tests.unit.domain import manifests

AGENT = SigningKey(b"a" * 32)
NOBODY = "http://127.0.0.1:9"  # the discard port, on which nothing listens


def make(path: Path, clock: Callable[[], float] = lambda: NOW) -> Site:
    folder = Folder(path)
    folder.make()
    certificate = Certificate(
        site=SITE, epoch=1, signing=AGENT.public, recipient="", not_before=0, not_after=int(NOW) + 10**6
    ).signed(manifests.ROOTS[SITE])
    stop = Event()
    return Site(
        folder=folder,
        settings=Settings(name=SITE, hub=NOBODY),
        certificate=certificate,
        signer=AGENT,
        identities={},
        journal=Journal(folder.agent, Marker(folder.marker)),
        book=Book(folder, SITE),
        hub=Hub(NOBODY, SITE, AGENT, stop=stop, clock=clock),
        log=Log(folder.log / "agent.log"),
        stop=stop,
        clock=clock,
    )
