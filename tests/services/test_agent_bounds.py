"""A trainer that takes more than its grant gives: real processes that allocate and write, seen and ended."""

import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from koinon.agent import bounds, sandbox
from koinon.agent.sandbox import Room, Sandbox
from koinon.domain.grant import Resources

MEMORY, DISK = 300 * 2**20, 2**26
WALLS = [False] if os.environ.get("KOINON_NO_WALLS") == "1" else [True, False]
# What takes memory or disk, and with which code it ends. 400 MiB and 100 MiB.
TAKERS = {
    "pages of its own": ("x = bytearray(400 * 2**20)", bounds.MEMORY, False),
    "pages of children": (
        """
        for _ in range(4):
            if os.fork() == 0:
                x = bytearray(100 * 2**20)
                time.sleep(600)
        """,
        bounds.MEMORY,
        False,
    ),
    "shared memory": ("open('/dev/shm/x', 'wb').write(bytes(400 * 2**20))", bounds.MEMORY, True),
    "memfd": ("os.write(os.memfd_create('x'), bytes(400 * 2**20))", bounds.MEMORY, False),
    "a file": ("open('x', 'wb').write(bytes(100 * 2**20))", bounds.DISK, False),
    "a deleted file": ("f = open('x', 'wb'); os.unlink('x'); f.write(bytes(100 * 2**20))", bounds.DISK, False),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    import shutil

    made = sandbox.short_folder()
    yield made
    shutil.rmtree(made, ignore_errors=True)


def start(script: str, folder: Path, *, walls: bool) -> Sandbox:
    text = "import os, sys, time\n" + textwrap.dedent(script) + "\ntime.sleep(600)\n"
    room = Room(hide=(), keep=sandbox.interpreter_paths(), writable=(folder,))
    return sandbox.start(
        [sys.executable, "-I", "-c", text], environment={"PATH": os.defpath}, directory=folder, room=room,
        log=lambda _: None, walls=walls,
    )  # fmt: skip


def watch(running: Sandbox, folder: Path, resources: Resources, seconds: float) -> list[str]:
    said: list[str] = []
    over = Event()

    def exceeded(code: str) -> None:
        said.append(code)
        running.kill()
        over.set()

    own = running.walls["files"] is True
    watching = bounds.Watch(running.process.pid, folder, resources, exceeded, own_shared_memory=own, every=0.1)
    over.wait(seconds)
    watching.end()
    return said


# Without walls /dev/shm is everybody's.
CASES = [(taker, walls) for taker, (_, _, needs_walls) in TAKERS.items() for walls in WALLS if walls or not needs_walls]


@pytest.mark.parametrize(("taker", "walls"), CASES)
def test_what_outgrows_its_bound_is_ended(folder: Path, taker: str, walls: bool) -> None:
    script, code, _ = TAKERS[taker]
    running = start(script, folder, walls=walls)
    try:
        assert watch(running, folder, Resources(memory=MEMORY, disk=DISK), 20) == [code]
        assert not running.alive
    finally:
        running.kill()


def test_pages_shared_by_a_fork_count_once(folder: Path) -> None:
    running = start(
        "x = bytearray(b'x' * 100 * 2**20)\nfor _ in range(4):\n    if os.fork() == 0: break", folder, walls=False
    )
    try:
        assert watch(running, folder, Resources(memory=MEMORY, disk=DISK), 2) == []
        assert running.alive
        used, stored = bounds.usage(running.process.pid, folder, own_shared_memory=False)
        assert 100 * 2**20 < used < 200 * 2**20
        assert stored < 2**20
    finally:
        running.kill()


def test_a_watch_that_was_ended_says_nothing(folder: Path) -> None:
    said: list[str] = []
    running = start("x = bytearray(400 * 2**20)", folder, walls=False)
    try:
        resources = Resources(memory=MEMORY, disk=DISK)
        watching = bounds.Watch(running.process.pid, folder, resources, said.append, own_shared_memory=False, every=0.5)
        watching.end()
        time.sleep(1)
        assert said == []
    finally:
        running.kill()
