"""The wall from the agent's side: one trainer per granted project, started, asked, bounded, restarted and ended here.

Between them pass only safetensors and JSON over HTTP, wherever the trainer runs (see `place`). Every question has a
time limit; when it is over the whole trainer is ended, whatever it is doing. Questions are idempotent, so that one that
broke off is asked again.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Event, RLock
from typing import Any, TypeVar

import httpx

from koinon.agent import answers
from koinon.agent.answers import Received
from koinon.agent.logs import Log
from koinon.agent.meter import Meter
from koinon.agent.place import Limit, Place, Work, within
from koinon.agent.troubles import TrainerTrouble
from koinon.domain.errors import Invalid, Unavailable
from koinon.domain.layout import Layout

START_SECONDS = 180.0  # four Ray heads at once on two cores took 43 s (RAY.md)
PREPARE_SECONDS = 300.0
HEALTH_SECONDS = 15.0
_ASKED = 3  # how often one question is asked over deaths of workers, Ray or the trainer
_LOST = ("unavailable", "worker_died")
_BLOCK = 2**20
T = TypeVar("T")
Body = Callable[[], Iterable[bytes]]
Read = Callable[[httpx.Response, Callable[[], None]], T]


class Trainer:
    """A project's trainer. Questions come from one thread; `stop` and `leave` may come from any."""

    def __init__(self, work: Work, place: Place, log: Log, meter: Meter) -> None:
        self.work = work
        self._place = place
        self._log = log
        self._meter = meter
        self._lock = RLock()
        self._stopped = Event()
        self._client: httpx.Client | None = None
        self._limit: Limit | None = None  # of the question that is being asked
        self.described: dict[str, Any] = {}
        self._ready = False

    @property
    def walls(self) -> dict[str, bool | str]:
        """Per wall True or why it is missing; empty before the first start."""
        return self._place.walls

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    @property
    def state(self) -> str:
        """away, starting or ready."""
        return "ready" if self.described else "starting" if self._client is not None else "away"

    def told(self, incident: str | None) -> str:
        """What the trainer logged about an error."""
        return self._place.told(incident)

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
        return self._ask("/v1/evaluate", body, _json, "application/octet-stream", size)

    def warm(self) -> None:
        """Starts and prepares it ahead of the next question. Raises TrainerTrouble, Unavailable, TransportError."""
        if self._ready:
            healthy = False
            with within(HEALTH_SECONDS) as limit, contextlib.suppress(httpx.TransportError, RuntimeError):
                healthy = self._healthy(limit)
            if not healthy:
                self._forget()
        self._ensure()

    def _ask(self, path: str, body: Body, read: Read[T], kind: str, size: int | None = None) -> T:
        """Asks until there is an answer: a dead worker, Ray or trainer is rebuilt and asked again."""
        error: TrainerTrouble | None = None
        for _ in range(_ASKED):
            try:
                self._ensure()
                return self._once(path, body, read, kind, self.work.resources.fit_seconds, size)
            except httpx.TransportError as lost:
                self._require_running()
                self._log.event("trainer-lost", project=self.work.project, path=path, error=type(lost).__name__)
                self._meter.losses.inc()
                self._forget()
                self._place.lost()
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

    def _once(self, path: str, body: Body, read: Read[T], kind: str, seconds: float, size: int | None = None,
              method: str = "POST") -> T:  # fmt: skip
        """One question. Raises TrainerTrouble for what the trainer says, TransportError if it goes away."""
        client = self._client
        if client is None:
            self._check_bounds()
            raise httpx.ConnectError("the trainer is not running")
        with within(seconds, self.kill) as limit:
            self._limit = limit

            def check() -> None:
                self._check_bounds()
                if limit.over.is_set():
                    self._require_running()
                    raise TrainerTrouble({"code": "timeout"})

            length = {} if size is None else {"Content-Length": str(size)}
            headers = {"Content-Type": kind, "Accept-Encoding": "identity", **length}
            content: Any = body() if size is not None else b"".join(body())
            try:
                with client.stream(method, path, content=content, headers=headers, extensions=limit.extensions) as said:
                    if said.is_success:
                        return read(said, check)
                    self._require_trusted(said.status_code)
                    raise TrainerTrouble(answers.receive_json(_pieces(said), check=check))
            except (httpx.TransportError, Invalid):  # an answer without a length just ends when it is cut
                check()
                raise
            except RuntimeError:
                if not client.is_closed:
                    raise
                check()
                raise httpx.ReadError("the trainer was ended") from None

    # life

    def _require_running(self) -> None:
        if self.stopped:
            raise Unavailable("This trainer was stopped.", where=f"project {self.work.project[:12]}")

    def _require_trusted(self, status: int) -> None:
        """Raises Unavailable if whoever listens there does not take this site's token."""
        if status in (401, 403):
            raise Unavailable(
                "The trainer refuses this site's token.",
                where=f"project {self.work.project[:12]}",
                todo="The token of its Ray cluster must be made from the same secret: kubectl koinon doctor",
            )

    def _check_bounds(self) -> None:
        """Raises TrainerTrouble if the trainer was ended for its memory or disk."""
        code = self._place.exceeded()
        if code is not None:
            raise TrainerTrouble({"code": code})

    def _ensure(self) -> None:
        """A trainer that answers and is prepared."""
        self._require_running()
        if self._client is None or not self._place.alive():
            self._forget()
            self._start()
        self._await_ready()
        if not self.described:
            self._send_package()
            body = json.dumps(self.work.prepare).encode()
            said = self._once("/v1/prepare", lambda: [body], _json, "application/json", PREPARE_SECONDS)
            if not isinstance(said, dict):
                raise Invalid("The trainer's description of the data has a wrong form.", where="prepare")
            self.described = said or {"prepared": True}
            self._log.event("prepared", project=self.work.project, **{k: said.get(k) for k in ("train", "test")})

    def _send_package(self) -> None:
        """The researcher's code, whose hash the trainer checks as the agent did."""
        package = self.work.package
        if package is None:
            return

        def body() -> Iterator[bytes]:
            with package.open("rb") as file:
                while block := file.read(_BLOCK):
                    yield block

        path = f"/v1/packages/{self.work.prepare['package']}"
        size = package.stat().st_size
        self._once(path, body, lambda *_: None, "application/zip", PREPARE_SECONDS, size, method="PUT")

    def _start(self) -> None:
        client = self._place.open(self._stopped)
        with self._lock:
            self._client = client
        self._meter.starts.inc()
        if self.stopped:
            self.kill()
            self._require_running()
        missing = {name: why for name, why in self._place.walls.items() if why is not True}
        self._log.event("trainer-started", project=self.work.project, missing_walls=missing)

    def _await_ready(self) -> None:
        """Waits until the trainer says that Ray answers. Raises TrainerTrouble if it ended or takes too long."""
        if self._ready:
            return
        with within(START_SECONDS) as limit:
            self._limit = limit
            while not limit.over.is_set():
                self._require_running()
                with contextlib.suppress(httpx.TransportError, RuntimeError):
                    if self._healthy(limit):
                        self._ready = True
                        return
                self._check_bounds()
                if not self._place.alive():
                    raise TrainerTrouble({"code": "unavailable"})
                self._stopped.wait(0.1)
        self._require_running()
        self._check_bounds()
        self.kill()
        raise TrainerTrouble({"code": "timeout"})

    def _healthy(self, limit: Limit) -> bool:
        client = self._client
        if client is None:
            return False
        with client.stream("GET", "/v1/health", timeout=10.0, extensions=limit.extensions) as response:
            self._require_trusted(response.status_code)
            return response.status_code == 200  # NB: the body is not read; it could be of any length

    def _forget(self) -> None:
        with self._lock:
            client, limit = self._client, self._limit
            self._client, self.described, self._ready = None, {}, False
        if limit is not None:
            limit.cut()
        if client is not None:
            client.close()

    def kill(self) -> None:
        """Ends the trainer with all its processes; the next question starts it anew."""
        self._forget()
        self._place.end()

    def stop(self) -> None:
        """Ends it for good: a revoked grant, or another one."""
        self._stopped.set()
        self.kill()

    def leave(self) -> None:
        """The agent ends. Where the trainer can outlive it, the next agent finds it."""
        self._stopped.set()
        self._forget()
        self._place.leave()


def _json(response: httpx.Response, check: Callable[[], None]) -> Any:
    return answers.receive_json(_pieces(response), check=check)


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    return response.iter_raw()
