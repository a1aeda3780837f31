"""The hub as an ASGI application: `create(settings)`."""

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI

from koinon.aggregation.commit import Keys
from koinon.artifacts import stores
from koinon.gateway import documents, folder, health, history, problems, projects, runs, sites, uploads
from koinon.gateway.auth import Directory
from koinon.gateway.hub import Hub
from koinon.gateway.metrics import Measured, Metrics
from koinon.gateway.probes import Probes
from koinon.scheduler.board import Board
from koinon.scheduler.look import Pace
from koinon.scheduler.loop import Scheduler
from koinon.store.store import Store

_DESCRIPTION = """The hub of a Koinon federation: hospitals train models together; every record and every single update
stays inside its walls.

Researchers send `Authorization: Bearer TOKEN`; sites sign their requests (RFC 9421). Errors are problem documents
(RFC 9457) that say what was wrong (`detail`), where (`where`) and what to do (`todo`). Times are seconds since 1970;
those of events, which their hashes cover, are whole milliseconds.
"""


@dataclass(frozen=True)
class Settings:
    """`database` and `artifacts` are URLs, by default within `folder`. `lost` is called once another hub has taken
    over the database: this one must stop then. `metrics_token` is what Prometheus must show. `url`: how sites reach
    this hub, if something stands before it."""

    folder: Path
    database: str | None = None
    artifacts: str | None = None
    pace: Pace = field(default_factory=Pace)
    clock: Callable[[], float] = time.time
    lost: Callable[[], None] = lambda: None
    metrics_token: str = field(default_factory=lambda: os.environ.get("KOINON_METRICS_TOKEN", ""), repr=False)
    url: str | None = None


def create(settings: Settings) -> FastAPI:
    """The application of the hub in `settings.folder`, whose HubLock the caller holds.

    Takes over the database: any other hub on it is refused from now on. Raises Unavailable, Conflict, Untrusted.
    """
    where = folder.create(settings.folder)
    store = Store(settings.database or where.database, clock=settings.clock)
    store.migrate()
    store.acquire()
    artifacts = stores.from_url(settings.artifacts or where.artifacts)
    metrics = Metrics(version("koinon"))
    board, directory = Board(settings.clock), Directory(store)
    scheduler = Scheduler(
        store,
        artifacts,
        Keys(where.signing, where.identity),
        where.spool,
        board,
        metrics,
        directory.certificate,
        clock=settings.clock,
        pace=settings.pace,
        lost=settings.lost,
    )
    probes = Probes(health.checks(store, artifacts, where.root))
    below = urlsplit(settings.url or "").path.rstrip("/")
    hub = Hub(
        where,
        store,
        artifacts,
        board,
        scheduler,
        directory,
        metrics,
        probes,
        settings.clock,
        below,
        settings.metrics_token,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await scheduler.start()
        try:
            yield
        finally:
            board.close()
            await scheduler.stop()
            store.close()

    # No /docs: its page would load scripts from the internet, and a hospital has none.
    app = FastAPI(title="Koinon hub", version=version("koinon"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.hub = hub
    problems.install(app, scheduler.check_fence, metrics.problem)
    for part in (health, projects, runs, history, sites, uploads):
        app.include_router(part.router)
    documents.install(app, _DESCRIPTION)
    app.add_middleware(Measured, metrics=metrics)
    return app
