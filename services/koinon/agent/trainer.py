"""The wall from the agent's side: one trainer per granted project, started, asked, bounded, restarted and ended here.

Between them pass only safetensors and JSON over a Unix socket. Every question has a time limit; when it is over the
whole trainer is killed, whatever it is doing. Questions are idempotent, so that one that broke off is asked again.
"""

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event, RLock, Timer
from typing import Any, TypeVar

import httpx

from koinon.agent import answers, bounds, sandbox
from koinon.agent.answers import Received
from koinon.agent.logs import Log, TrainerLog
from koinon.agent.sandbox import Room, Sandbox
from koinon.agent.troubles import TrainerTrouble
from koinon.domain.errors import Invalid, Unavailable
from koinon.domain.grant import Resources
from koinon.domain.layout import Layout

START_SECONDS = 180.0  # four Ray heads at once on two cores took 43 s (RAY.md)
PREPARE_SECONDS = 300.0
_ASKED = 3  # how often one question is asked over deaths of workers, Ray or the trainer
_LOST = ("unavailable", "worker_died")
T = TypeVar("T")
Body = Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Work:
    """What a project's trainer is given: the body of `prepare`, and the files that it may see."""

    project: str
    prepare: Mapping[str, Any]
    dataset: Path
    package: Path | None
    resources: Resources


class Trainer:
    """A project's trainer. Questions come from one thread; `stop` may come from any."""

    def __init__(self, work: Work, *, hide: Iterable[Path], log: Log, walls: bool = True) -> None:
        self.work = work
        self._hide = tuple(hide)
        self._log = log
        self.lines = TrainerLog(log, work.project)
        self._walls = walls
        self._lock = RLock()
        self._stopped = Event()
        self._sandbox: Sandbox | None = None
        self._client: httpx.Client | None = None
        self._folder: Path | None = None
        self.described: dict[str, Any] = {}
        self._ready = False
        self._exceeded: str | None = None  # the bound that the last process was ended for
        self._watch: bounds.Watch | None = None

    @property
    def walls(self) -> dict[str, bool | str]:
        """Per wall True or why it is missing; empty before the first start."""
        return dict(self._sandbox.walls) if self._sandbox else {}

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    # questions

    def init(self, body: Mapping[str, Any], layout: Layout, target: Path) -> Received:
        """The first weights, as a whole safetensors file of `layout`."""

        def read(response: httpx.Response, check: Callable[[], None]) -> Received:
            return answers.receive_tensors(_pieces(response), layout, target, check=check, whole=True)

        return self._ask("/v1/init", lambda: [json.dumps(body).encode()], read, "application/json")

    def fit(self, body: Body, size: int, layout: Layout, target: Path) -> Received:
        """Local training: the values of `layout` into `target`, and the report in the metadata."""

        def read(response: httpx.Response, check: Callable[[], None]) -> Received:
            return answers.receive_tensors(_pieces(response), layout, target, check=check)

        return self._ask("/v1/fit", body, read, "application/octet-stream", size)

    def evaluate(self, body: Body, size: int) -> Any:
        """The report on a model as JSON."""

        def read(response: httpx.Response, check: Callable[[], None]) -> Any:
            return answers.receive_json(_pieces(response), check=check)

        return self._ask("/v1/evaluate", body, read, "application/octet-stream", size)

    def _ask(self, path: str, body: Body, read: Callable[[httpx.Response, Callable[[], None]], T], kind: str,
             size: int | None = None) -> T:  # fmt: skip
        """Asks until there is an answer: a dead worker, Ray or trainer is rebuilt and asked again."""
        error: TrainerTrouble | None = None
        for _ in range(_ASKED):
            try:
                self._ensure()
                return self._once(path, body, read, kind, self.work.resources.fit_seconds, size)
            except httpx.TransportError as lost:
                self._require_running()
                self._log.event("trainer-lost", project=self.work.project, path=path, error=type(lost).__name__)
                self.kill()
                error = TrainerTrouble({"code": "unavailable"})
            except TrainerTrouble as said:
                if said.code == "not_prepared":
                    self.described = {}
                elif said.code not in _LOST:
                    raise
                self._require_running()
                self._ready = False
                error = said
        assert error is not None
        raise error

    def _once(self, path: str, body: Body, read: Callable[[httpx.Response, Callable[[], None]], T], kind: str,
              seconds: float, size: int | None = None) -> T:  # fmt: skip
        """One question. Raises TrainerTrouble for what the trainer says, TransportError if it goes away."""
        client, over = self._client, Event()
        if client is None:
            self._check_bounds()
            raise httpx.ConnectError("the trainer is not running")

        def expire() -> None:
            over.set()
            self.kill()

        def check() -> None:
            if over.is_set():
                raise TrainerTrouble({"code": "timeout"})
            self._check_bounds()

        timer = Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            length = {} if size is None else {"Content-Length": str(size)}
            headers = {"Content-Type": kind, "Accept-Encoding": "identity", **length}
            content: Any = body() if size is not None else b"".join(body())
            with client.stream("POST", path, content=content, headers=headers) as response:
                if response.status_code == 200:
                    return read(response, check)
                raise TrainerTrouble(answers.receive_json(_pieces(response), check=check))
        except httpx.TransportError:
            check()
            raise
        finally:
            timer.cancel()

    # life

    def _require_running(self) -> None:
        if self.stopped:
            raise Unavailable("This trainer was stopped.", where=f"project {self.work.project[:12]}")

    def _check_bounds(self) -> None:
        """Raises TrainerTrouble if the trainer was ended for its memory or disk."""
        if self._exceeded is not None:
            raise TrainerTrouble({"code": self._exceeded})

    def _ensure(self) -> None:
        """A trainer that answers and is prepared."""
        self._require_running()
        if self._sandbox is None or not self._sandbox.alive:
            self.kill()
            self._start()
        self._await_ready()
        if not self.described:
            body = json.dumps(self.work.prepare).encode()
            read = answers.receive_json
            said = self._once(
                "/v1/prepare",
                lambda: [body],
                lambda response, check: read(_pieces(response), check=check),
                "application/json",
                PREPARE_SECONDS,
            )
            if not isinstance(said, dict):
                raise Invalid("The trainer's description of the data has a wrong form.", where="prepare")
            self.described = said or {"prepared": True}
            self._log.event("prepared", project=self.work.project, **{k: said.get(k) for k in ("train", "test")})

    def _start(self) -> None:
        folder = sandbox.short_folder()
        with self._lock:
            self._folder = folder
            path = folder / "s"
            resources = self.work.resources
            keep = [
                *sandbox.interpreter_paths(),
                self.work.dataset,
                *([self.work.package] if self.work.package else []),
            ]
            room = Room(self._hide, tuple(keep), (folder,), shared_memory=resources.memory)
            self._exceeded = None
            running = self._sandbox = sandbox.start(
                self._command(path, folder),
                environment=sandbox.environment(folder, cpus=resources.cpus),
                directory=folder,
                room=room,
                log=self.lines,
                walls=self._walls,
                remove=folder,
            )

            def exceeded(code: str) -> None:
                with self._lock:
                    if self._sandbox is not running:
                        return
                    self._exceeded = code
                self._log.event("trainer-ended", project=self.work.project, code=code)
                self.kill()

            self._watch = bounds.Watch(
                running.process.pid, folder, resources, exceeded, own_shared_memory=running.walls["files"] is True
            )
            self.described = {}
            transport = httpx.HTTPTransport(uds=str(path))
            timeout = httpx.Timeout(None, connect=5.0)  # each question has its own timer
            self._client = httpx.Client(
                transport=transport, base_url="http://trainer", timeout=timeout, trust_env=False
            )
        missing = {name: why for name, why in running.walls.items() if why is not True}
        self._log.event("trainer-started", project=self.work.project, missing_walls=missing)

    def _command(self, path: Path, folder: Path) -> list[str]:
        given = self.work.resources
        options = {
            "--socket": path,
            "--temp": folder / "r",  # NB: Ray opens its folder to everybody; the one above it is ours alone
            "--cpus": given.cpus,
            "--store-bytes": min(2**30, given.memory // 4),
            "--seconds": given.fit_seconds,
        }
        return [sys.executable, "-m", "koinon.trainer", *(str(word) for option in options.items() for word in option)]

    def _await_ready(self) -> None:
        """Waits until the trainer says that Ray answers. Raises TrainerTrouble if it ended or takes too long."""
        if self._ready:
            return
        over = Event()
        timer = Timer(START_SECONDS, over.set)
        timer.daemon = True
        timer.start()
        try:
            while not over.is_set():
                self._require_running()
                with contextlib.suppress(httpx.TransportError):
                    if self._healthy():
                        self._ready = True
                        return
                self._check_bounds()
                if self._sandbox is None or not self._sandbox.alive:
                    raise TrainerTrouble({"code": "unavailable"})
                self._stopped.wait(0.1)
            self.kill()
            raise TrainerTrouble({"code": "timeout"})
        finally:
            timer.cancel()

    def _healthy(self) -> bool:
        client = self._client
        if client is None:
            return False
        with client.stream("GET", "/v1/health", timeout=10.0) as response:
            return response.status_code == 200  # NB: the body is not read; it could be of any length

    def kill(self) -> None:
        """Ends the trainer with all its processes and removes its folder; the next question starts it anew."""
        with self._lock:
            running, client, folder, watch = self._sandbox, self._client, self._folder, self._watch
            self._sandbox = self._client = self._folder = None
            self.described, self._ready = {}, False
        if watch is not None:
            watch.end()
        if running is not None:
            running.kill()
        if client is not None:
            client.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """Ends it for good: a revoked grant, or the agent's own end."""
        self._stopped.set()
        self.kill()


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    return response.iter_raw()
