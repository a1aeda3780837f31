"""A hub with options of its own, as the command serves it: HTTPS, a proxy before it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from koinon.client import commands
from tests.services.authority import Authority
from tests.services.hubs import HubProcess


class Served(HubProcess):
    """`koinon hub serve` with options of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self._options = options

    def launch(self) -> "subprocess.Popen[str]":
        command = [*commands.KOINON, "hub", "serve", "--dir", str(self.folder), "--port", str(self.port)]
        with (self.folder.parent / "hub.log").open("a") as log:
            return subprocess.Popen([*command, *self._options], stdout=subprocess.PIPE, stderr=log, text=True)

    @property
    def address(self) -> str:
        return (self.folder / "address").read_text().strip()


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    hub = Served(folder, *options)
    hub.start()
    try:
        yield hub
    finally:
        if hub.running:
            assert hub.stop() == 0


def pair(authority: Authority, folder: Path) -> dict[str, bytes]:
    certificate, key = folder / "new.crt", folder / "new.key"
    authority.issue(certificate, key)
    return {"tls.crt": certificate.read_bytes(), "tls.key": key.read_bytes()}
