"""Where a project's trainer runs, behind one protocol: a process of this machine, or a job of a Ray cluster of pods."""

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer
from typing import Any, Protocol

import httpx

from koinon.domain.grant import Resources


@dataclass(frozen=True)
class Work:
    """What a project's trainer is given: the body of `prepare`, and the files that it may see."""

    project: str
    prepare: Mapping[str, Any]
    dataset: Path
    package: Path | None
    resources: Resources


class Place(Protocol):
    """One trainer's place. Questions come from one thread; `end` may come from any, also while `open` waits."""

    @property
    def walls(self) -> dict[str, bool | str]:
        """Per wall True or why it is missing; empty before the first start."""

    def open(self, stopped: Event) -> httpx.Client:
        """Starts the trainer, or finds the one that runs; a client for its HTTP API, which may not answer yet.

        Raises Unavailable if there is no place for it now, or `stopped` was set meanwhile.
        """

    def alive(self) -> bool:
        """Whether what `open` started may still come up or answer."""

    def exceeded(self) -> str | None:
        """The code of the bound that the last trainer was ended for."""

    def lost(self) -> None:
        """The connection broke. The next `open` finds out whether the trainer did, too."""

    def end(self) -> None:
        """Ends the trainer and all that it runs; the next `open` starts a new one. May be called again."""

    def leave(self) -> None:
        """This agent ends. A trainer that can outlive it stays, for the next one."""

    def told(self, incident: str | None) -> str:
        """What the trainer logged about an error, for the hospital's own log; "" if that is not known."""


class Limit:
    """Cuts the connections that were made under it: the other side may send a byte now and then for ever."""

    def __init__(self) -> None:
        self.over = Event()
        self._sockets: list[socket.socket] = []

    def trace(self, event: str, information: Mapping[str, Any]) -> None:
        """For httpx's extension of that name: learns of new connections."""
        if event.startswith("connection.connect_") and event.endswith(".complete"):
            found = information["return_value"].get_extra_info("socket")
            self._sockets.append(found)
            if self.over.is_set():
                _cut(found)

    @property
    def extensions(self) -> dict[str, Any]:
        return {"trace": self.trace}

    def cut(self) -> None:
        """From any thread: whoever waits on these connections gets an error."""
        self.over.set()
        for found in list(self._sockets):
            _cut(found)


def _cut(found: socket.socket) -> None:
    with contextlib.suppress(OSError):
        found.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def within(seconds: float, expired: Callable[[], None] = lambda: None) -> Iterator[Limit]:
    """A limit that is over after `seconds`; then `expired` is called, too."""
    limit = Limit()

    def expire() -> None:
        limit.cut()
        expired()

    timer = Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()
