"""A real MinIO server for tests: `minio` of the PATH, or built from its Go module; absent both, the tests fail.

The built program stays in the user's cache ($XDG_CACHE_HOME/koinon/bin), named by the hash of what it was built
from. Data and credentials last as long as the server.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.services import ports

_MODULE = Path(__file__).parent / "minio_build"
_START_SECONDS = 60


def program() -> Path:
    """Raises RuntimeError if there is no MinIO and no Go to build one, or the build fails."""
    on_path = shutil.which("minio")
    if on_path:
        return Path(on_path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "koinon" / "bin"
    cache.mkdir(parents=True, exist_ok=True)
    sources = hashlib.sha256(b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum")))
    target = cache / f"minio-{sources.hexdigest()[:16]}"
    with (cache / "minio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be building it
        if not target.exists():
            _build(target)
    return target


def _build(target: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("MinIO is absent: put minio on the PATH, or Go, to build it")
    draft = target.with_suffix(".draft")
    command = [go, "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(draft), "github.com/minio/minio"]
    done = subprocess.run(command, cwd=_MODULE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"MinIO cannot be built from its Go module:\n{done.stderr[-2_000:]}")
    draft.replace(target)


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
