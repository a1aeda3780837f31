"""The wall between agent and trainer, really built: no network, no key, no process left.

These fail where the system forbids namespaces. KOINON_NO_WALLS=1 says that this machine is known to, and alone skips
them; then the agent must still say which walls are missing.
"""

import ast
import socket
import sys
from pathlib import Path

import pytest

from koinon.agent import sandbox
from koinon.agent.sandbox import Room
from tests.services.walls import room, run, running, site, walled

__all__ = ["room", "site"]  # fixtures

WALLS = sandbox.probe()


@walled
def test_all_walls_stand_here() -> None:
    assert [name for name in sandbox.WALLS if WALLS[name] is not True] == [], "KOINON_NO_WALLS=1 if that is known"


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


SEEN = """
    import os
    for path in {paths!r}:
        try:
            print(path, "->", os.listdir(path) if os.path.isdir(path) else open(path).read())
        except OSError:
            print(path, "denied")
"""


def seen(room: Room, *paths: Path) -> list[str]:
    """Per path what a command behind the walls sees there."""
    lines = run(SEEN.format(paths=[str(path) for path in paths]), room)
    return [line.partition(" ")[2] for line in lines]


def put(path: Path, text: str = "secret") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@walled
def test_hidden_and_kept_places_nest_to_any_depth(tmp_path: Path) -> None:
    inner = put(tmp_path / "a/b/c/d/file", "deep")
    hidden, kept, link = put(tmp_path / "a/b/c/file"), put(tmp_path / "a/b/file", "kept"), tmp_path / "link"
    link.symlink_to(inner)
    single = put(tmp_path / "a/b/single")
    room = Room(
        hide=(tmp_path / "a", tmp_path / "a/b/c", single, tmp_path / "nowhere"),
        keep=(*sandbox.interpreter_paths(), tmp_path / "a/b", tmp_path / "a/b/c/d", link),
        writable=(put(tmp_path / "work/file").parent,),
    )
    shown = seen(room, kept, hidden, single, inner, link, tmp_path / "a", tmp_path / "a/b/c")
    assert shown == ["-> kept", "denied", "-> ", "-> deep", "-> deep", "-> ['b']", "-> ['d']"]
    assert hidden.read_text() == "secret"


@walled
@pytest.mark.parametrize("place", ["home/repo/build/up", "srv/federation", "home/repo/venv/share/up"])
def test_no_key_of_a_federation_is_seen_wherever_it_lies(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(put(tmp_path / "home/repo/services/koinon/__init__.py", "code").parents[2])
    up = tmp_path / place
    site = put(up / "sites/lyon/root/root.key").parents[1]
    keys = [
        site / "root/root.key", put(site / "agent/signing.key"), put(up / "sites/nice/root/root.key"),
        put(up / "hub/keys/signing.key"), put(up / "researcher.token"), put(up / "identity.age"),
    ]  # fmt: skip
    data, code = put(site / "data/heart.csv", "rows"), put(tmp_path / "home/repo/venv/lib/code.py", "code")
    room = Room(
        hide=(*sandbox.around(site), *site.iterdir(), Path.home()),
        keep=(*sandbox.interpreter_paths(), tmp_path / "home/repo/venv", tmp_path / "home/repo/services/koinon", data),
        writable=(put(tmp_path / "work/file").parent,),
    )
    package = tmp_path / "home/repo/services/koinon/__init__.py"
    shown = seen(room, *keys, data, code, package, tmp_path / "home/repo/services")
    assert shown == ["denied"] * len(keys) + ["-> rows", "-> code", "-> code", "-> ['koinon']"]


@walled
def test_keys_are_hidden_in_a_data_set_that_encloses_them(site: Path) -> None:
    room = Room(
        hide=(*sandbox.around(site), *site.iterdir()),
        keep=(*sandbox.interpreter_paths(), site),
        writable=(site.parent / "work",),
    )
    assert seen(room, site / "root/root.key", site / "marker/marker.json") == ["denied", "denied"]


def test_the_interpreter_needs_neither_the_working_directory_nor_the_checkout() -> None:
    repository = Path(__file__).parents[2]
    kept = [path.resolve() for path in sandbox.interpreter_paths()]
    for place in (repository, repository / "services", Path.cwd(), Path.home(), repository / "build"):
        assert not any(place.is_relative_to(path) for path in kept), place
    assert repository / "services" / "koinon" in kept


def test_the_environment_has_nothing_of_the_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KOINON_CONFIG", "KOINON_KEY", "KOINON_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "secret")
    found = sandbox.environment(tmp_path, cpus=1)
    assert "secret" not in " ".join(found.values())
    assert not [name for name in found if "KOINON" in name]
    assert found["PYTHONSAFEPATH"] == "1"


@walled
def test_koinon_starts_behind_the_walls(room: Room, tmp_path: Path) -> None:
    lines: list[str] = []
    script = "import koinon.trainer, os, sys; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1], '' in sys.path)"
    started = sandbox.start(
        [sys.executable, "-c", script], environment=sandbox.environment(room.writable[0], cpus=1),
        directory=room.writable[0], room=room, log=lines.append,
    )  # fmt: skip
    started.process.wait(timeout=60)
    started.kill()
    assert lines == ["[0, 1, 2] False"], "no descriptor of the agent is left open"


@walled
def test_even_a_root_reaches_neither_disks_nor_the_kernels_settings(room: Room) -> None:
    script = """
        import ctypes, os
        print(sorted(os.listdir("/dev")))
        print(os.listdir("/etc"))
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/dev/new"):
            try:
                open(path, "w").close()
                print(path, "opened")
            except OSError:
                print(path, "denied")
        print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))])
        print(ctypes.CDLL(None).unshare(0x10000000), "a further user namespace")
    """
    lines = run(script, room)
    allowed = {"null", "zero", "full", "random", "urandom", "fd", "shm", "dri", "kfd", "dxg"}
    assert {name for name in ast.literal_eval(lines[0]) if not name.startswith("nvidia")} <= allowed
    assert not {"shadow", "ssh", "gshadow"} & set(ast.literal_eval(lines[1]))
    assert [line.split()[1] for line in lines[2:5]] == ["denied"] * 3
    assert set(ast.literal_eval(lines[5])) == {"0" * 16}
    assert lines[6] == "-1 a further user namespace"


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


def test_output_lines_are_bounded(room: Room) -> None:
    lines = run("import sys; sys.stdout.write('x' * 1_000_000)", room)
    assert max(map(len, lines)) <= sandbox.MAX_LINE
    assert sum(map(len, lines)) == 1_000_000
