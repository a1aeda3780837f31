"""A real PostgreSQL of one's own for a test module: a fresh cluster on a Unix socket in a short folder.

Its programs come from the PATH, from Debian's folder, or are installed there by root; absent, the tests fail.
PostgreSQL refuses to run as root, so root runs it as `nobody`.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

_START_SECONDS = 60


def _found() -> Path | None:
    on_path = shutil.which("initdb")
    folders = [Path(on_path).parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


def programs() -> Path:
    """The folder of initdb and postgres. Raises RuntimeError if there is none and none can be installed."""
    found = _found()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in ("update", "install -y --no-install-recommends postgresql"):
            subprocess.run(["apt-get", *command.split()], check=True, stdout=subprocess.DEVNULL, env=environment)
        found = _found()
    if found is None:
        raise RuntimeError("PostgreSQL is absent: put its initdb and postgres on the PATH (apt-get install postgresql)")
    return found


def _as_other() -> list[str]:
    if os.geteuid() != 0:
        return []
    other = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]


class Server:
    """One cluster. `url(name)` creates an empty database; `kill` is SIGKILL; `start` recovers after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs = programs()
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            other = pwd.getpwnam("nobody")
            os.chown(folder, other.pw_uid, other.pw_gid)
        command = [str(self._programs / "initdb"), "-D", str(folder / "data"), "-U", "koinon", "-A", "trust", "-N"]
        command += ["--locale=C", "--encoding=UTF8"]
        subprocess.run([*_as_other(), *command], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    def start(self) -> None:
        """Returns once it answers. After a kill the old backends may take a moment to notice: tried again."""
        end = time.monotonic() + _START_SECONDS
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder)]
        # Tests kill processes, not the machine: what was written to the page cache survives without fsync.
        command += ["-c", "listen_addresses=", "-c", "fsync=off"]
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [*_as_other(), *command], cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            with contextlib.suppress(psycopg.OperationalError), self._connect():
                return
            time.sleep(0.05)
        raise RuntimeError("PostgreSQL did not start")

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """At once: its files are thrown away anyway."""
        self._signal(signal.SIGQUIT)

    def url(self, name: str, encoding: str = "UTF8") -> str:
        with self._connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 ENCODING "{encoding}"')
        return f"postgresql://koinon@/{name}?host={self._folder}"

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self._folder), user="koinon", dbname="postgres", autocommit=True)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A started server; gone with all its files afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="kpg-", dir="/tmp"))  # a socket's path has at most 107 bytes
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
