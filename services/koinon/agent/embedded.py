"""A trainer as a process tree of this machine, on a Unix socket, behind the walls that the system allows."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import Event, RLock

import httpx

from koinon.agent import bounds, sandbox
from koinon.agent.logs import Log, TrainerLog
from koinon.agent.place import Work
from koinon.agent.sandbox import Room, Sandbox


class Embedded:
    """A place (see `place.Place`). `hide` are folders that research code must not see even where it sees others."""

    def __init__(self, work: Work, log: Log, *, hide: Iterable[Path], walls: bool = True) -> None:
        self._work = work
        self._log = log
        self._lines = TrainerLog(log, work.project)
        self._hide = tuple(hide)
        self._walls = walls
        self._lock = RLock()
        self._sandbox: Sandbox | None = None
        self._folder: Path | None = None
        self._watch: bounds.Watch | None = None
        self._exceeded: str | None = None

    @property
    def walls(self) -> dict[str, bool | str]:
        return dict(self._sandbox.walls) if self._sandbox else {}

    def alive(self) -> bool:
        running = self._sandbox
        return running is not None and running.alive

    def exceeded(self) -> str | None:
        return self._exceeded

    def told(self, incident: str | None) -> str:
        return self._lines.of_incident(incident)

    def open(self, stopped: Event) -> httpx.Client:
        self.end()
        folder = sandbox.short_folder()
        with self._lock:
            self._folder = folder
            resources = self._work.resources
            room = Room(
                self._hide,
                (*sandbox.interpreter_paths(), self._work.dataset),
                (folder,),
                shared_memory=resources.memory,
            )
            self._exceeded = None
            running = self._sandbox = sandbox.start(
                self._command(folder),
                environment=sandbox.environment(folder, cpus=resources.cpus),
                directory=folder,
                room=room,
                log=self._lines,
                walls=self._walls,
                remove=folder,
            )
            own = running.walls["files"] is True
            self._watch = bounds.Watch(
                running.process.pid, folder, resources, lambda code: self._end_for(running, code), own_shared_memory=own
            )
        transport = httpx.HTTPTransport(uds=str(folder / "s"))
        timeout = httpx.Timeout(None, connect=5.0)  # each question has its own limit
        return httpx.Client(transport=transport, base_url="http://trainer", timeout=timeout, trust_env=False)

    def _end_for(self, running: Sandbox, code: str) -> None:
        with self._lock:
            if self._sandbox is not running:
                return
            self._exceeded = code
        self._log.event("trainer-ended", project=self._work.project, code=code)
        self.end()

    def _command(self, folder: Path) -> list[str]:
        given = self._work.resources
        options = {
            "--socket": folder / "s",
            "--temp": folder / "r",  # NB: Ray opens its folder to everybody; the one above it is ours alone
            "--cpus": given.cpus,
            "--store-bytes": min(2**30, given.memory // 4),
            "--seconds": given.fit_seconds,
        }
        return [sys.executable, "-m", "koinon.trainer", *(str(word) for option in options.items() for word in option)]

    def lost(self) -> None:
        self.end()

    def leave(self) -> None:
        self.end()

    def end(self) -> None:
        """Kills every process of the trainer and removes its folder."""
        with self._lock:
            running, folder, watch = self._sandbox, self._folder, self._watch
            self._sandbox = self._folder = self._watch = None
        if watch is not None:
            watch.end()
        if running is not None:
            running.kill()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
