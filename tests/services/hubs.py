"""A real hub in a process of its own, that tests can kill and start again on the same folder and port."""

import contextlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from koinon.store import accounts
from koinon.store.store import Store
from tests.services import ports

_MAIN = """
import pathlib, sys
from koinon.domain.errors import KoinonError
from koinon.gateway.serve import serve
from koinon.scheduler.look import Pace
folder, port, gather, database, artifacts = sys.argv[1:6]
try:
    serve(pathlib.Path(folder), "127.0.0.1", int(port), database or None, artifacts or None,
          pace=Pace(gather=float(gather)))
except KoinonError as error:
    print(f"error: {error}", flush=True)
    sys.exit(error.exit_code)
"""


class HubProcess:
    """`start`, `kill` (SIGKILL), `stop` (SIGTERM); the same folder and port every time."""

    def __init__(self, folder: Path, *, gather: float = 1.0, database: str = "", artifacts: str = "") -> None:
        self.folder = folder
        self.port = ports.free()
        self._settled = False  # it has listened on that port: sites know it
        self._arguments = [str(gather), database, artifacts]
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> "subprocess.Popen[str]":
        """A process on this folder, whoever else is there. Its log goes to hub.log beside the folder."""
        command = [sys.executable, "-c", _MAIN, str(self.folder), str(self.port), *self._arguments]
        with (self.folder.parent / "hub.log").open("a") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def start(self) -> None:
        for _ in range(20):
            self._process = self.launch()
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
            if "cannot listen there" not in line:
                break
            self._process.wait()
            self._close()
            if self._settled:
                time.sleep(0.5)
            else:
                self.port = ports.free()
        assert "Koinon hub at" in line, line + self.log()
        self._settled = True

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._close()

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(30)
        self._close()
        return code

    def ended(self, seconds: float = 30.0) -> tuple[int, str]:
        """Its exit status and what it printed last, once it ended by itself."""
        assert self._process is not None
        text, _ = self._process.communicate(timeout=seconds)
        code, self._process = self._process.returncode, None
        return code, text

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def log(self) -> str:
        return (self.folder.parent / "hub.log").read_text()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def token(self, user: str) -> str:
        """A new user's bearer token, as `koinon user add` makes it."""
        token = secrets.token_urlsafe(32)
        with self.store() as store:
            store.add_user(user, accounts.hash_token(token))
        return token

    def invitation(self, site: str) -> str:
        token = secrets.token_urlsafe(32)
        with self.store() as store:
            store.add_enrolment(accounts.hash_token(token), site, time.time() + 600)
        return token

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        store = Store(self._arguments[1] or f"sqlite:///{self.folder / 'hub.sqlite'}")
        store.migrate()
        try:
            yield store
        finally:
            store.close()

    def client(self, user: str = "ada") -> httpx.Client:
        return httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token(user)}"}, timeout=30, trust_env=False
        )


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[HubProcess]:
    """A hub that is up, and down at the end."""
    hub = HubProcess(folder, **options)
    hub.start()
    try:
        yield hub
    finally:
        if hub.running:
            hub.stop()


def wait_for(condition: Any, seconds: float = 60.0, what: str = "") -> Any:
    """The first true value of `condition()`; fails after `seconds`."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"{what or condition} did not come true in {seconds} s"
        time.sleep(0.02)
    return value
