"""Keeps the processes of a local federation, and ends every one of them when whoever started it is gone.

Run as `python -m koinon.client.supervisor`. It reads orders as JSON lines from standard input and answers with
JSON lines: `{"do": "start", "name", "command", "log", "environment"}` → `{"started": name, "pid"}`;
`{"do": "signal", "name", "number"}`; whenever a process ends → `{"ended": name, "code"}`. When the input ends, for
whatever reason (SIGKILL of a notebook too), all end: first asked, then killed, their orphans included. Standard library
only, so that it costs a few megabytes.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

GRACE_SECONDS = float(os.environ.get("KOINON_GRACE_SECONDS", "20"))  # to end in order, before they are killed
_SET_CHILD_SUBREAPER = 36  # man 2 prctl


def adopt_orphans() -> bool:
    """A process whose parent died becomes ours instead of init's (Linux). False where that is not offered."""
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def descendants(root: int) -> list[int]:
    """Every process below `root`, children before their parents. Empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found[::-1]


class Supervisor:
    """The processes by name. All methods run in the one thread."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, order: dict[str, Any]) -> None:
        with open(order["log"], "ab") as log:
            process = subprocess.Popen(
                order["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **order.get("environment", {})},
                start_new_session=True,
            )
        self._running[order["name"]] = process
        _tell({"started": order["name"], "pid": process.pid})

    def signal(self, order: dict[str, Any]) -> None:
        process = self._running.get(order["name"])
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, int(order["number"]))

    def reap(self) -> None:
        """Buries the dead, adopted ones too, and tells of those that have a name."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name, process in list(self._running.items()):
                if process.pid == pid:
                    process.returncode = os.waitstatus_to_exitcode(status)
                    del self._running[name]
                    _tell({"ended": name, "code": process.returncode})

    def end(self) -> None:
        """Asks all, waits for them, kills what is left."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        while self._running and time.monotonic() < until:
            self._wait(until - time.monotonic())
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        while left := descendants(os.getpid()):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._wait(0.5)

    def _wait(self, seconds: float) -> None:
        """Until a process ends, at most so long."""
        select.select([_wakeups[0]], [], [], max(0.0, seconds))
        _drain(_wakeups[0])
        self.reap()


_wakeups = (-1, -1)


def _tell(value: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError, ValueError):
        print(json.dumps(value), flush=True)


def _drain(descriptor: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, 65_536)
    return b""


def _serve(supervisor: Supervisor) -> None:
    pending = b""
    while True:
        ready, _, _ = select.select([0, _wakeups[0]], [], [])
        if _wakeups[0] in ready:
            numbers = _drain(_wakeups[0])
            supervisor.reap()
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                return
        if 0 in ready:
            piece = os.read(0, 65_536)
            if not piece:
                return
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                order = json.loads(line)
                {"start": supervisor.start, "signal": supervisor.signal}[order["do"]](order)


def main() -> None:
    global _wakeups
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    _wakeups = (reading, writing)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    adopt_orphans()
    supervisor = Supervisor()
    try:
        _serve(supervisor)
    finally:
        supervisor.end()


if __name__ == "__main__":
    main()
