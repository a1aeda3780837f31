"""Starts a command behind the walls of `wall.py`, says which walls stand, and ends its whole tree of processes."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO

from koinon.agent import wall
from koinon.domain.errors import Unavailable

WALLS = ("network", "processes", "files")
MAX_LINE = 16 * 2**10
_START_SECONDS = 20.0
_PACKAGE = Path(wall.__file__).resolve().parents[1]
_PREFIX_PARTS = ("bin", "lib", "lib64", "include", "share", "etc", "ssl", "pyvenv.cfg")
_SEEN = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "proc", "sys", "nix", "gnu")
_DEVICES = ("null", "zero", "full", "random", "urandom", "dri", "kfd")
_SETTINGS = (
    "passwd", "group", "hosts", "host.conf", "nsswitch.conf", "protocols", "services", "localtime", "timezone",
    "os-release", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "OpenCL", "ssl/openssl.cnf",
)  # fmt: skip


@dataclass(frozen=True)
class Room:
    """What a command sees beyond the system's programs: `keep` shows, `hide` not (the innermost of them decides).

    Only `writable` takes writes, and the shared memory.
    """

    hide: tuple[Path, ...]
    keep: tuple[Path, ...]
    writable: tuple[Path, ...]
    shared_memory: int = 2**30  # bytes of its own /dev/shm


def interpreter_paths() -> tuple[Path, ...]:
    """What this Python needs to be seen to start Koinon again: never a working directory, nor all of a checkout."""
    parts = [Path(prefix) / part for prefix in _prefixes() for part in _PREFIX_PARTS]
    return tuple(path for path in (*parts, *_extra_packages(), _PACKAGE) if path.exists())


def _prefixes() -> list[Path]:
    return [Path(prefix) for prefix in dict.fromkeys((sys.prefix, sys.base_prefix, sys.exec_prefix))]


def _extra_packages() -> list[Path]:
    """Folders of installed packages outside the prefixes, such as a user's own."""
    found = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return [path for path in found if not any(path.is_relative_to(prefix) for prefix in _prefixes())]


def _machine() -> tuple[list[Path], list[Path]]:
    """Hidden and kept of the machine itself: what is not named here is not seen, wherever keys may lie."""
    top = [path for path in Path("/").iterdir() if path.is_dir() and not path.is_symlink()]
    devices = [Path("/dev", name) for name in _DEVICES]
    accelerators = [*Path("/dev").glob("nvidia*"), *Path("/dev").glob("dxg")]
    settings = [Path("/etc", name) for name in _SETTINGS]
    return [path for path in top if path.name not in _SEEN], [*devices, *accelerators, *settings]


def around(folder: Path) -> tuple[Path, ...]:
    """A folder of keys with the two that enclose it, where a local federation has its neighbours, hub and tokens."""
    found = folder.resolve()
    spared = [Path("/"), *(path for path in Path("/").iterdir()), Path("/usr/local")]
    return tuple(path for path in (found, *found.parents[:2]) if path not in spared)


def short_folder() -> Path:
    """A new folder with a name short enough for Unix sockets (108 bytes with Ray's own 70), mode 0700."""
    base = "/tmp" if os.access("/tmp", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="kn-", dir=base))


def environment(folder: Path, *, cpus: int) -> dict[str, str]:
    """The trainer's whole environment: nothing of the agent's own is inherited but where Python finds itself."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
    threads = str(cpus)
    installed = _PACKAGE.parent.name in ("site-packages", "dist-packages")  # NB: not twice, it would shadow the library
    path = [*([] if installed else [_PACKAGE.parent]), *_extra_packages()]
    return {
        "PATH": os.defpath,
        **kept,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "RAY_TMPDIR": str(folder),  # NB: Ray's token is drawn by the trainer itself; a token here would show in `ps`
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        **({"PYTHONPATH": os.pathsep.join(map(str, path))} if path else {}),
        "PYTHONSAFEPATH": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@dataclass
class Sandbox:
    """A running command. `walls` says per wall True, or why it is missing."""

    process: "subprocess.Popen[bytes]"
    walls: dict[str, bool | str]
    _threads: list[Thread] = field(default_factory=list)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def missing(self) -> list[str]:
        return [name for name in WALLS if self.walls.get(name) is not True]

    def kill(self) -> None:
        """Ends every process of the tree and waits for it. May be called again."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(timeout=5)


def _drain(stream: IO[bytes], line: Callable[[str], None]) -> None:
    """Hands over the lines of `stream`, none longer than MAX_LINE, until its end."""
    with stream:
        while text := stream.readline(MAX_LINE):
            line(text.decode("utf-8", "replace").rstrip("\r\n"))


def _read_report(reading: int, process: "subprocess.Popen[bytes]") -> dict[str, bool | str]:
    with open(reading, "rb", buffering=0) as report:
        text = b""
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([report], [], [], _START_SECONDS)
            piece = report.read(4096) if ready else b""
            if not piece:
                process.kill()
                process.wait()
                raise Unavailable("The trainer's walls could not be built.", where="agent.sandbox")
            text += piece
    walls: dict[str, bool | str] = json.loads(text)["walls"]
    return walls


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    room: Room,
    log: Callable[[str], None],
    walls: bool = True,
    remove: Path | None = None,
) -> Sandbox:
    """Starts `command` in `directory`; both its output streams go to `log` line by line.

    The folder `remove` goes when all of it has ended, also if this process was killed.
    `walls=False` starts it without any (it still ends as a whole). Raises Unavailable if it cannot be started.
    """
    reading, writing = os.pipe()
    hidden, kept = _machine()
    order = {
        "command": list(command),
        "environment": dict(environment),
        "directory": str(directory),
        "hide": [os.path.abspath(path) for path in (*hidden, *room.hide)],
        "keep": [os.path.abspath(path) for path in (*kept, *room.keep)],
        "writable": [str(path.resolve()) for path in room.writable],
        "shared_memory": room.shared_memory,
        "walls": walls,
        "remove": None if remove is None else str(remove),
        "report": writing,
    }
    # A fresh process, not a fork: threads hold keys and locks here. The pipe at its descriptor 0 ties its life to ours.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(wall.__file__)), json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(writing,),
        env={"PATH": os.environ.get("PATH", os.defpath)},
        cwd="/",
    )
    os.close(writing)
    sandbox = Sandbox(process, _read_report(reading, process))
    assert process.stdout is not None
    thread = Thread(target=_drain, args=(process.stdout, log), daemon=True, name="trainer-log")
    thread.start()
    sandbox._threads.append(thread)
    return sandbox


def probe() -> dict[str, bool | str]:
    """Which walls this system allows, by building them around a command that ends at once."""
    folder = short_folder()
    try:
        room = Room(hide=(), keep=(), writable=(folder,))
        sandbox = start(["true"], environment={"PATH": os.defpath}, directory=folder, room=room, log=lambda _: None)
        sandbox.kill()
        return sandbox.walls
    finally:
        shutil.rmtree(folder, ignore_errors=True)
