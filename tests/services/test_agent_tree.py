"""No process of a trainer outlives it or its agent, with walls and without."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from threading import Thread

import pytest

from koinon.agent.sandbox import Room
from tests.services.walls import room, running, site

__all__ = ["room", "site"]  # fixtures

TREE = """
    import os, subprocess, sys, time
    for index in range(3):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {mark!r}], start_new_session=True)
    if os.fork() == 0:
        if os.fork() == 0:  # an orphan that left its session
            os.setsid()
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", {mark!r}])
        os._exit(0)
    os.wait()
    print("grown", flush=True)
    time.sleep(600)
"""


def alive(mark: str) -> int:
    return sum(mark.encode() in _command(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_until(condition: object, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("walls", [True, False])
def test_the_whole_tree_ends_with_kill(room: Room, walls: bool, tmp_path: Path) -> None:
    mark = f"mark-{tmp_path.name}-{walls}"
    script = textwrap.dedent(TREE.format(mark=mark))
    with running([sys.executable, "-I", "-c", script], room, walls=walls) as (started, lines):
        assert wait_until(lambda: "grown" in lines), lines
        assert wait_until(lambda: alive(mark) >= 4)
        started.kill()
        assert alive(mark) == 0
        assert not started.alive


@pytest.mark.parametrize("walls", [True, False])
def test_the_tree_ends_with_an_agent_that_is_killed(room: Room, walls: bool, tmp_path: Path) -> None:
    mark = f"mark-{tmp_path.name}-{walls}"
    agent = f"""
        import sys, time
        from pathlib import Path
        from koinon.agent import sandbox
        from koinon.agent.sandbox import Room
        room = Room({tuple(map(str, room.hide))!r}, {tuple(map(str, room.keep))!r}, {tuple(map(str, room.writable))!r})
        room = Room(*(tuple(map(Path, part)) for part in (room.hide, room.keep, room.writable)))
        sandbox.start([sys.executable, "-I", "-c", {textwrap.dedent(TREE.format(mark=mark))!r}],
            environment={{"PATH": "/usr/bin:/bin"}}, directory=room.writable[0], room=room,
            log=lambda line: print(line, flush=True), walls={walls}, remove=room.writable[0])
        time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(agent)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    reader = Thread(target=process.stdout.readline)
    reader.start()
    reader.join(30)
    assert wait_until(lambda: alive(mark) >= 4)
    process.kill()
    process.wait()
    process.stdout.close()
    assert wait_until(lambda: alive(mark) == 0), "something outlived its agent"
    assert wait_until(lambda: not room.writable[0].exists()), "its folder outlived it"
