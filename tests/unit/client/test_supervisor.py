"""Whoever started a federation may vanish; its processes and their orphans end all the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from koinon.client.processes import Processes, wait_for_file
from koinon.domain import errors

# A process that ignores the polite signal, with a child in a session of its own, as Ray's daemons are.
_STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: None)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _gone(pids: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(_alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOINON_GRACE_SECONDS", "0.5")


def test_close_ends_stubborn_processes_and_their_orphans(tmp_path: Path, short_grace: None) -> None:
    processes = Processes()
    try:
        processes.start("a", [sys.executable, "-c", _STUBBORN, str(tmp_path / "pids")], tmp_path / "a.log")
        pids = [int(pid) for pid in wait_for_file(tmp_path / "pids", processes, 20).split()]
        assert all(_alive(pid) for pid in pids)
    finally:
        processes.close()
    assert _gone(pids, 5)
    processes.close()


def test_orphan_of_a_process_that_ended_is_ended_too(tmp_path: Path, short_grace: None) -> None:
    processes = Processes()
    try:
        processes.start("a", [sys.executable, "-c", _STUBBORN, str(tmp_path / "pids")], tmp_path / "a.log")
        own, orphan = (int(pid) for pid in wait_for_file(tmp_path / "pids", processes, 20).split())
        processes.signal("a", signal.SIGKILL)
        assert processes.wait("a", 10) == -9
        assert processes.pid("a") is None
        assert not _alive(own)
        assert _alive(orphan)
    finally:
        processes.close()
    assert _gone([orphan], 5)


def test_all_end_when_the_caller_is_killed(tmp_path: Path, short_grace: None) -> None:
    code = f"""
import sys, time
from pathlib import Path
from koinon.client.processes import Processes
p = Processes()
p.start("a", [sys.executable, "-c", {_STUBBORN!r}, {str(tmp_path / "pids")!r}], Path({str(tmp_path / "a.log")!r}))
time.sleep(600)
"""
    caller = subprocess.Popen([sys.executable, "-c", code])
    try:
        until = time.monotonic() + 20
        while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    finally:
        os.kill(caller.pid, signal.SIGKILL)
        caller.wait()
    assert _gone(pids, 10)


def test_a_process_that_fails_is_named_with_its_last_line(tmp_path: Path) -> None:
    processes = Processes()
    try:
        command = [sys.executable, "-c", "import sys; print('first', flush=True); sys.exit('the port is taken')"]
        processes.start("hub", command, tmp_path / "hub.log")
        with pytest.raises(errors.Failed, match="the port is taken") as caught:
            wait_for_file(tmp_path / "never", processes, 20)
        assert caught.value.where == "hub"
    finally:
        processes.close()
