"""The trainer's HTTP API, for the agent alone: on a Unix socket, or behind a token. Safetensors and JSON only.

GET  /v1/health    200 if Ray itself answers, 503 if not
PUT  /v1/packages/SHA256  a researcher's package, before it is prepared
POST /v1/prepare   a project: its data are read and checked, its actor started
POST /v1/init      the first weights of a run
POST /v1/fit       scores the model in the body, then trains it: update, control variates, report
POST /v1/evaluate  scores the model in the body
GET  /v1/incidents/ID  what the log says about one of the last errors

A round is a function of its request: asked again, it is answered from memory or computed again, with the
same tensors. Errors are JSON {code, error, place, names, shapes, incident}; their text stays in the hospital.
"""

import asyncio
import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from koinon.trainer import bodies, cluster, errors, projects, tensors
from koinon.trainer.errors import TrainerError
from koinon.trainer.projects import Prepare, Project
from koinon.trainer.tensors import Layout, Vector

KEPT_ANSWERS = 8
KEPT_BYTES = 256 * 2**20  # a larger answer is computed again instead
KEPT_INCIDENTS = 16

Parameters = dict[str, int | str]
Sha256 = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")]


class Init(BaseModel):
    """`project` may be left out while only one is prepared."""

    model_config = ConfigDict(extra="forbid")

    project: str | None = None
    run: str
    seed: int = Field(ge=0)
    parameters: Parameters
    timeout: float | None = Field(None, gt=0)


class Call(BaseModel):
    """A round's request, under "request" in the metadata of the tensors. `timeout` in seconds."""

    model_config = ConfigDict(extra="forbid")

    project: str
    run: str
    round: int = Field(ge=1)
    seed: int = Field(ge=0)
    site: str
    kind: str = "train"
    parameters: Parameters
    timeout: float | None = Field(None, gt=0)


@dataclass(frozen=True)
class Settings:
    """`scratch` for packages; seconds a round may take; bytes a body may have; the token that callers need."""

    scratch: Path
    seconds: float = 3_600.0
    max_bytes: int = 16 * 2**30
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Answer:
    """Tensors with their header, or only a report."""

    header: bytes = b""
    vectors: tuple[Vector, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.header) + sum(vector.nbytes for vector in self.vectors)


class Trainer:
    """Prepared projects, rounds under way, and the last answers. Lives in the server's event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._projects: dict[str, Project] = {}
        self._preparing = asyncio.Lock()
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._running: dict[str, asyncio.Future[Answer]] = {}
        self._threads = ThreadPoolExecutor(32, "round")

    async def prepare(self, request: Prepare) -> Project:
        async with self._preparing:
            known = self._projects.get(request.project)
            if known is not None and known.key == projects.fingerprint(request):
                return known
            made: Project = await self._in_thread(lambda: Project(request, self.settings.scratch))
            self._projects[request.project] = made
            self._answers.clear()  # they were computed on other data
            if known is not None:
                await self._in_thread(known.group.close)
            return made

    def project(self, name: str | None) -> Project:
        if name is None and len(self._projects) == 1:
            return next(iter(self._projects.values()))
        found = self._projects.get(name or "")
        if found is None:
            raise TrainerError("not_prepared", f"project {name!r} is not prepared")
        return found

    async def once(self, key: str, work: Callable[[], Answer]) -> Answer:
        """`work()` in a thread; a request that comes again joins the one under way or gets its answer."""
        if key in self._answers:
            self._answers.move_to_end(key)
            return self._answers[key]
        running = self._running.get(key)
        if running is None:
            running = asyncio.ensure_future(self._in_thread(work))
            self._running[key] = running
            running.add_done_callback(lambda done: self._finish(key, done))
        return await asyncio.shield(running)

    def _finish(self, key: str, done: "asyncio.Future[Answer]") -> None:
        del self._running[key]
        if done.cancelled() or done.exception() is not None or done.result().size > KEPT_BYTES:
            return
        self._answers[key] = done.result()
        while len(self._answers) > KEPT_ANSWERS or sum(a.size for a in self._answers.values()) > KEPT_BYTES:
            self._answers.popitem(last=False)

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def init(self, request: Init) -> Answer:
        group = self.project(request.project).group
        seconds = request.timeout or self.settings.seconds
        layout, vector = group.call(request.run, "init", request.seed, request.parameters, seconds=seconds)
        return Answer(tensors.header(layout, ("model",)), (vector,))

    def fit(self, call: Call, layout: Layout, vectors: dict[str, Vector]) -> Answer:
        needed = {"model", "control", "local"} if call.parameters.get("strategy") == "scaffold" else {"model"}
        if set(vectors) != needed:
            raise TrainerError("bad_request", f"the tensors are {sorted(vectors)}, not {sorted(needed)}")
        answer, report = self._call(call, "fit", layout, vectors)
        head = tensors.header(layout, tuple(answer), {"report": json.dumps(report)})
        return Answer(head, tuple(answer.values()), report)

    def evaluate(self, call: Call, layout: Layout, vectors: dict[str, Vector]) -> Answer:
        if "model" not in vectors:
            raise TrainerError("bad_request", "the tensors have no model")
        return Answer(report=self._call(call, "evaluate", layout, vectors["model"]))

    def _call(self, call: Call, method: str, layout: Layout, sent: Any) -> Any:
        project = self.project(call.project)
        rows = project.rows(projects.cohort_of(call.parameters))
        seconds, before = call.timeout or self.settings.seconds, cluster.oom_kills()
        try:
            return project.group.call(call.run, method, call.model_dump(), layout, sent, rows, seconds=seconds)
        except TrainerError as error:
            # In a pod the kernel ends what outgrows its limit; on a machine of its own the agent does.
            if error.code == "worker_died" and self.settings.token is not None and cluster.oom_kills() > before:
                error.code = "out_of_memory"
            raise


def create(settings: Settings) -> FastAPI:
    """The application. Its lifespan watches Ray, which must be running, and ends the process without it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.trainer, app.state.pulse = Trainer(settings), cluster.Pulse()
        watch = asyncio.create_task(app.state.pulse.watch())
        watch.add_done_callback(lambda task: None if task.cancelled() else app.state.pulse.leave())
        yield
        watch.cancel()

    app = FastAPI(title="Koinon trainer", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    if settings.token is not None:
        app.add_middleware(bodies.Guarded, token=settings.token)
    incidents: OrderedDict[str, str] = OrderedDict()

    @app.exception_handler(TrainerError)
    async def expected(request: Request, error: TrainerError) -> Response:
        errors.record(error)
        incidents[error.incident] = f"{error.code} {error.place}\n{error.text[-errors.MAX_TEXT :]}"
        if len(incidents) > KEPT_INCIDENTS:
            incidents.popitem(last=False)
        return JSONResponse(error.crossing(), error.status)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return await expected(request, errors.of_learner(error, settings.scratch, (), (), code="internal"))

    @app.get("/v1/health")
    async def health(request: Request) -> Response:
        ready = await request.app.state.pulse.ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    @app.get("/v1/incidents/{incident}")
    async def incident(incident: str) -> Response:
        return PlainTextResponse(incidents.get(incident, ""), 200 if incident in incidents else 404)

    @app.put("/v1/packages/{sha256}", status_code=204)
    async def package(sha256: Sha256, request: Request) -> None:
        await bodies.receive_package(request, sha256, projects.package_file(settings.scratch, sha256))

    @app.post("/v1/prepare")
    async def prepare(request: Request) -> Response:
        asked = bodies.parse(Prepare, await bodies.receive(request, 2**26))
        return JSONResponse((await _trainer(request).prepare(asked)).summary())

    @app.post("/v1/init")
    async def init(request: Request) -> Response:
        body = await bodies.receive(request, 2**20)
        asked, trainer = bodies.parse(Init, body), _trainer(request)
        return _tensors(await trainer.once(_key("init", body), lambda: trainer.init(asked)))

    @app.post("/v1/fit")
    async def fit(request: Request) -> Response:
        body = await bodies.receive(request, settings.max_bytes)
        layout, vectors, call = _call(body)
        trainer, key = _trainer(request), await asyncio.to_thread(_key, "fit", body)
        return _tensors(await trainer.once(key, lambda: trainer.fit(call, layout, vectors)))

    @app.post("/v1/evaluate")
    async def evaluate(request: Request) -> Response:
        body = await bodies.receive(request, settings.max_bytes)
        layout, vectors, call = _call(body)
        trainer, key = _trainer(request), await asyncio.to_thread(_key, "evaluate", body)
        answer = await trainer.once(key, lambda: trainer.evaluate(call, layout, vectors))
        return JSONResponse(answer.report)

    return app


def _trainer(request: Request) -> Trainer:
    found: Trainer = request.app.state.trainer
    return found


def _key(method: str, body: bytearray) -> str:
    return f"{method} {hashlib.sha256(body).hexdigest()}"


def _call(body: bytearray) -> tuple[Layout, dict[str, Vector], Call]:
    layout, vectors, metadata = tensors.parse(body)
    return layout, vectors, bodies.parse(Call, metadata.get("request", "").encode())


def _tensors(answer: Answer) -> Response:
    return bodies.tensors(answer.header, answer.vectors, answer.size)
