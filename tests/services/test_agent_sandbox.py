"""The wall between agent and trainer, really built: no network, no key, no process left. Where the system forbids
namespaces, the agent must say so instead."""

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from koinon.agent import sandbox
from koinon.agent.sandbox import Room, Sandbox

WALLS = sandbox.probe()
FULL = all(WALLS[name] is True for name in sandbox.WALLS)
walled = pytest.mark.skipif(not FULL, reason="this system builds not all walls; test_the_agent_says covers it")


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


def test_the_agent_says_which_walls_stand() -> None:
    assert set(WALLS) == set(sandbox.WALLS)
    for name, standing in WALLS.items():
        assert standing is True or (isinstance(standing, str) and standing), name


def test_without_namespaces_it_says_why_and_still_runs(room: Room) -> None:
    with running(["true"], room, walls=False) as (started, _):
        assert started.missing() == list(sandbox.WALLS)
        assert started.walls["network"] == "switched off"
        assert started.process.wait(timeout=20) == 0


@walled
def test_there_is_no_network_but_loopback(room: Room) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"""
            import socket
            print([name for _, name in socket.if_nameindex()])
            for host in ("127.0.0.1", "192.0.2.1", "8.8.8.8"):
                try:
                    socket.create_connection((host, {port}), timeout=2).close()
                    print(host, "connected")
                except OSError as error:
                    print(host, type(error).__name__)
            with socket.create_server(("127.0.0.1", 0)) as own:
                socket.create_connection(own.getsockname(), timeout=2).close()
                print("own loopback works")
        """
        lines = run(script, room)
    assert lines[0] == "['lo']"
    assert lines[1] == "127.0.0.1 ConnectionRefusedError", "the machine's own loopback is another one"
    assert lines[2:] == ["192.0.2.1 OSError", "8.8.8.8 OSError", "own loopback works"]


@walled
def test_keys_cannot_be_read_by_any_way(room: Room, site: Path) -> None:
    script = f"""
        import ctypes, os
        site, key = {str(site)!r}, {str(site / "root" / "root.key")!r}
        libc = ctypes.CDLL(None, use_errno=True)
        def attempt(name, call):
            try:
                print(name, "->", call())
            except OSError as error:
                print(name, "denied")
        attempt("read", lambda: open(key).read())
        attempt("list", lambda: os.listdir(site))
        for flags in (0, 2):
            print("umount", libc.umount2(site.encode(), flags))
            print("umount /tmp", libc.umount2(b"/tmp", flags))
        attempt("by pid 1", lambda: open("/proc/1/root" + key).read())
        attempt("pid 1's namespace", lambda: os.open("/proc/1/ns/mnt", os.O_RDONLY))
        os.makedirs({str(site.parent / "work" / "view")!r})
        print("bind", libc.mount(b"/", {str(site.parent / "work" / "view")!r}.encode(), None, 4096, None))
        attempt("read by the bind", lambda: open({str(site.parent / "work" / "view")!r} + key).read())
        print("remount", libc.mount(None, b"/", None, 32 | 4096, None))
        attempt("write elsewhere", lambda: open("/usr/koinon-was-here", "w"))
        attempt("change the data", lambda: open({str(site / "data" / "heart.csv")!r}, "w"))
        attempt("data", lambda: open({str(site / "data" / "heart.csv")!r}).read())
    """
    lines = run(script, room)
    text = "\n".join(lines)
    assert "content of root" not in text
    assert "content of agent" not in text
    assert "read denied" in lines
    assert "list -> ['data']" in lines
    assert [line for line in lines if line.startswith("umount")] == ["umount -1", "umount /tmp -1"] * 2
    assert "remount -1" in lines
    assert "write elsewhere denied" in lines
    assert "change the data denied" in lines
    assert lines[-1] == "data -> content of data/heart.csv"
    assert (site / "root" / "root.key").read_text() == "content of root/root.key"


@walled
def test_the_agents_processes_are_not_seen(room: Room) -> None:
    script = """
        import os
        print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) [:1], os.getppid())
        print(len([name for name in os.listdir("/proc") if name.isdigit()]))
    """
    lines = run(script, room)
    assert lines[0] == "[1] 1"
    assert int(lines[1]) <= 3


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


def test_output_lines_are_bounded(room: Room) -> None:
    lines = run("import sys; sys.stdout.write('x' * 1_000_000)", room)
    assert max(map(len, lines)) <= sandbox.MAX_LINE
    assert sum(map(len, lines)) == 1_000_000
