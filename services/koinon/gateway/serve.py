"""`serve` runs a hub until it is told to stop: one process, one folder."""

import asyncio
import ctypes
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from koinon.artifacts import files
from koinon.domain import keys
from koinon.domain.errors import Conflict, Invalid
from koinon.domain.loopback import is_loopback
from koinon.gateway import app as application
from koinon.gateway import tls
from koinon.gateway.app import Settings
from koinon.gateway.hub import Hub
from koinon.gateway.tls import Files
from koinon.scheduler.look import Pace
from koinon.store.lock import HubLock

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
STOP_SECONDS = 10  # that requests under way get to finish
_log = logging.getLogger("koinon.gateway")


def serve(
    folder: Path,
    host: str,
    port: int,
    database: str | None = None,
    artifacts: str | None = None,
    *,
    pace: Pace | None = None,
    encrypted: Files | None = None,
    url: str | None = None,
) -> None:
    """Serves the hub in `folder` (made if absent) until SIGTERM or SIGINT; then stops in order and returns.

    `port` 0 takes a free one. `encrypted`: HTTPS. `url`: how sites and researchers reach it, if otherwise. Prints one
    line once it answers, and writes its URL into `folder/address`. Raises Conflict if another hub uses the folder,
    before anything is changed, or once another one has taken the database; NotFound, Invalid for a certificate.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _tune_allocator()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    secured = None if encrypted is None else (encrypted, tls.context(encrypted))
    if secured is None and not is_loopback(host):
        _log.warning("Plain HTTP on %s: TLS must end before it, and nobody else may reach it.", host)
    with HubLock(folder), _listening(host, port) as listener:
        server: _Server | None = None
        lost = threading.Event()

        def taken_over() -> None:
            lost.set()
            if server is not None:
                server.end()

        settings = Settings(folder, database, artifacts, pace or Pace(), lost=taken_over, url=url)
        server = _Server(application.create(settings), folder, secured, url)
        server.run([listener])
        (folder / "address").unlink(missing_ok=True)
        if lost.is_set():
            raise Conflict(
                "Another hub has taken over this hub's database.", where=str(folder), todo="Stop one of them."
            )


class _Server(uvicorn.Server):
    """uvicorn with a readiness line, and signals that end the long-polls before they wait for them."""

    def __init__(
        self, app: FastAPI, folder: Path, secured: tuple[Files, ssl.SSLContext] | None, url: str | None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=STOP_SECONDS,
                server_header=False,
                ssl_context_factory=None if secured is None else lambda *_: secured[1],
            )
        )
        self._folder, self._url = folder, url
        self._secured = secured
        self._renewing: asyncio.Task[None] | None = None
        self._hub: Hub = app.state.hub
        self._own_loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started or not sockets:
            return
        self._own_loop = asyncio.get_running_loop()
        if self._secured is not None:
            pair, live = self._secured
            self._renewing = asyncio.create_task(tls.renew(live, pair))
            self._hub.metrics.certificate(pair.ends)
        host, port = sockets[0].getsockname()[:2]
        scheme = "http" if self._secured is None else "https"
        url = self._url or (f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
        with files.draft(self._folder / "address") as file:
            file.write(f"{url}\n".encode())
        shown = keys.fingerprint(self._hub.folder.signing.public)
        print(f"Koinon hub at {url}, folder {self._folder}, fingerprint {shown}", flush=True)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends in order on SIGTERM and SIGINT, and returns; uvicorn would raise the signal again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGTERM, signal.SIGINT)
        before = {kind: signal.signal(kind, lambda *_: self.end()) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def end(self) -> None:
        """From any thread or a signal handler. A second call does not wait for requests under way."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self._own_loop is not None:
            self._own_loop.call_soon_threadsafe(self._hub.board.close)


def _tune_allocator() -> None:
    """Lets glibc keep the buffers of uploads: fresh memory is 25 times slower than warm (PROTECTION.md, Ingest)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library has no such knob
        mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Raises Invalid if the address cannot be used."""
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Invalid(
            f"The hub cannot listen there: {error.strerror or error}.",
            where=f"{host}:{port}",
            todo="Is another hub running? --port 0 takes a free port.",
        ) from None
    with listener:
        yield listener
