"""The processes of a local federation as the caller sees them: a supervisor of its own holds and ends them."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from koinon.client.supervisor import GRACE_SECONDS
from koinon.domain import errors


class Processes:
    """Starts named processes whose output goes to log files. `close` ends all; so does the caller's own end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pids: dict[str, int] = {}
        self._codes: dict[str, int] = {}
        self._logs: dict[str, Path] = {}
        # A session of its own: Ctrl-C at the terminal reaches the caller alone, who then ends things in order.
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "koinon.client.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="koinon-processes", daemon=True)
        self._reader.start()

    def start(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        """Raises Unavailable if the supervisor is gone."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._logs[name] = log
        with self._changed:
            self._pids.pop(name, None)
            self._codes.pop(name, None)
        self._order(do="start", name=name, command=list(command), log=str(log), environment=dict(environment or {}))
        with self._changed:
            self._changed.wait_for(lambda: name in self._pids or self._supervisor.poll() is not None, timeout=30)

    def pid(self, name: str) -> int | None:
        """None once it ended."""
        return None if name in self._codes else self._pids.get(name)

    def signal(self, name: str, number: int) -> None:
        self._order(do="signal", name=name, number=int(number))

    def wait(self, name: str, seconds: float) -> int | None:
        """The exit code of `name`, None if it still runs after so long."""
        with self._changed:
            self._changed.wait_for(lambda: name in self._codes, timeout=seconds)
        return self._codes.get(name)

    def check(self) -> None:
        """Raises Failed if a process ended that nobody stopped, with the last line it wrote."""
        for name, code in self._codes.items():
            if code not in (0, -15):
                raise errors.Failed(
                    f"It ended with code {code}: {last_line(self._logs[name])}",
                    where=name,
                    todo=f"Its log is {self._logs[name]}",
                )

    def close(self) -> None:
        """Ends every process and waits until none is left. May be called again."""
        if self._supervisor.stdin is not None and not self._supervisor.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._supervisor.stdin.close()
        try:
            self._supervisor.wait(GRACE_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        self._reader.join(timeout=5)
        if self._supervisor.stdout is not None:
            self._supervisor.stdout.close()

    def _order(self, **order: Any) -> None:
        stream = self._supervisor.stdin
        try:
            if stream is None or stream.closed:
                raise BrokenPipeError
            stream.write(json.dumps(order).encode() + b"\n")
            stream.flush()
        except BrokenPipeError:
            raise errors.Unavailable("The local federation has been stopped.", todo="Start it again.") from None

    def _read(self) -> None:
        stream = self._supervisor.stdout
        if stream is None:
            return
        for line in stream:
            told = json.loads(line)
            with self._changed:
                if "started" in told:
                    self._pids[told["started"]] = told["pid"]
                else:
                    self._codes[told["ended"]] = told["code"]
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:300] if lines else "it wrote nothing"


def wait_for_file(path: Path, processes: Processes, seconds: float) -> str:
    """The text of a file that a process writes when it is ready. Raises Waiting, or Failed if the process ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        processes.check()
        if path.exists() and (text := path.read_text().strip()):
            return text
        # Files tell nobody that they have come, on all systems alike.
        threading.Event().wait(0.05)
    raise errors.Waiting(f"It did not appear within {seconds:.0f} s.", where=str(path))


def short_environment() -> dict[str, str]:
    """What the processes get beyond their own: one thread a numeric library, since several share the cores."""
    threads = {
        name: os.environ.get(name, "1") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    }
    return {**threads, "PYTHONUNBUFFERED": "1"}
