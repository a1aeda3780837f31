"""Commands behind the walls, for the tests of them."""

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koinon.agent import sandbox
from koinon.agent.sandbox import Room, Sandbox

walled = pytest.mark.skipif(os.environ.get("KOINON_NO_WALLS") == "1", reason="KOINON_NO_WALLS=1: no namespaces here")


@contextmanager
def running(command: list[str], room: Room, *, walls: bool = True) -> Iterator[tuple[Sandbox, list[str]]]:
    lines: list[str] = []
    environment = {"PATH": os.environ["PATH"]}
    started = sandbox.start(
        command, environment=environment, directory=room.writable[0], room=room, log=lines.append, walls=walls
    )
    try:
        yield started, lines
    finally:
        started.kill()


def run(script: str, room: Room, *, walls: bool = True) -> list[str]:
    """What a Python script prints behind the walls."""
    with running([sys.executable, "-I", "-c", textwrap.dedent(script)], room, walls=walls) as (started, lines):
        started.process.wait(timeout=60)
        for thread in started._threads:
            thread.join(10)
        return list(lines)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("root/root.key", "agent/signing.key", "marker/marker.json", "data/heart.csv"):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"content of {name}")
    (tmp_path / "work").mkdir()
    return tmp_path / "site"


@pytest.fixture
def room(site: Path) -> Room:
    keep = (*sandbox.interpreter_paths(), site / "data" / "heart.csv")
    return Room(hide=(site, Path("/tmp"), Path("/run")), keep=keep, writable=(site.parent / "work",))
