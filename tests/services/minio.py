"""A real MinIO server for tests. Its data and credentials last as long as the server."""

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.services import ports
from tests.services.minio_program import program

_START_SECONDS = 60


class Server:
    """One server on one port of 127.0.0.1. `kill` is SIGKILL; `start` brings it back with its data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._program = folder, program()
        self._process: subprocess.Popen[bytes] | None = None
        self.access_key, self.secret_key = secrets.token_hex(8), secrets.token_hex(16)
        self.address = f"127.0.0.1:{ports.free()}"
        self._settled = False  # it has listened there: others know the address

    def environment(self) -> dict[str, str]:
        """The credentials as the hub reads them."""
        return {"KOINON_S3_ACCESS_KEY": self.access_key, "KOINON_S3_SECRET_KEY": self.secret_key}

    def url(self, bucket: str) -> str:
        return f"s3://{self.address}/{bucket}?tls=no"

    def start(self) -> None:
        """Returns once it answers; the first time, on another port if somebody has taken the one that was free."""
        for _ in range(5):
            if self._answers():
                self._settled = True
                return
            taken = "already in use" in (self.folder / "log").read_text()
            if self._settled or not taken:
                break
            (self.folder / "log").unlink()
            self.address = f"127.0.0.1:{ports.free()}"
        raise RuntimeError(f"MinIO did not start:\n{(self.folder / 'log').read_text()[-2_000:]}")

    def _answers(self) -> bool:
        own = {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key, "HOME": str(self.folder)}
        quiet = {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "PATH": os.environ["PATH"]}
        command = [str(self._program), "server", "--quiet", "--address", self.address, str(self.folder / "data")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, env=own | quiet, stdout=log, stderr=log)
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if httpx.get(f"http://{self.address}/minio/health/ready").is_success:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        return False

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A started server whose files are below `folder`."""
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
