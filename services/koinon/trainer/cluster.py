"""One project's Ray at one hospital, and the question whether it still lives: a head inside this process's session, or
a cluster of pods whose head this process runs on.

A killed raylet goes unnoticed for many seconds by those who only talk to actors, so readiness asks the
control store and the object store themselves, and the death of either process ends this one: the agent
starts a new trainer, which is simpler and faster than mending a broken session.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger("koinon.trainer")

ASK_SECONDS = 3.0
WATCH_SECONDS = 10.0
MISSED = 3  # silent answers in a row before the session counts as dead
GONE = 70  # exit status (EX_SOFTWARE): Ray is gone, start me again
LONGEST_SOCKET = 107  # bytes of a Unix socket's path on Linux; 103 on macOS
_SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_register_timeout_seconds": "180",
}
_SESSION = "/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
_PROCESSES = ("gcs_server", "raylet")


def start(folder: Path, *, cpus: int, store_bytes: int) -> None:
    """Starts the head, with its session below `folder`. Raises ValueError if that path is too long."""
    if len(os.fsencode(folder)) + len(_SESSION) > LONGEST_SOCKET:
        longest = LONGEST_SOCKET - len(_SESSION)
        raise ValueError(f"{folder} is too long for Ray's sockets: {longest} bytes at most, such as /tmp/k-lyon.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # set always: unset, Ray keeps one in the home
    os.environ |= {
        **_SETTINGS,
        # Fixed ports otherwise, which several hospitals on one machine would fight for.
        "DASHBOARD_METRIC_PORT": str(_free_port()),
        "AUTOSCALER_METRIC_PORT": str(_free_port()),
    }
    import ray  # reads its settings from the environment above

    ray.init(
        address="local",
        num_cpus=cpus,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=store_bytes,
        _temp_dir=str(folder),
    )


def join() -> str:
    """Connects to the Ray that runs on this machine. Answers its token. Raises ValueError without either."""
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    if not token and (path := os.environ.get("RAY_AUTH_TOKEN_PATH")):
        token = Path(path).read_text().strip()
    if not token or os.environ.get("RAY_AUTH_MODE") != "token":
        raise ValueError("a trainer on the network needs RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN.")
    os.environ |= _SETTINGS
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise ValueError(f"no Ray runs here: {error}") from None
    return token


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pulse:
    """Asks Ray, and notices its death."""

    def __init__(self) -> None:
        # One thread: behind a question that hangs, the next ones time out as well.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "pulse")
        self._gone = asyncio.Event()
        self._children = children()

    async def ready(self, seconds: float = ASK_SECONDS) -> bool:
        """Whether control store and object store both answer within `seconds`."""
        if self._gone.is_set():
            return False
        question = asyncio.get_running_loop().run_in_executor(self._thread, _ask)
        try:
            return await asyncio.wait_for(asyncio.shield(question), seconds)
        except TimeoutError:
            return False

    async def watch(self) -> None:
        """Returns when Ray is gone. Where the system has pidfds, the kernel says so at once."""
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as watched:
            for pid in self._children if hasattr(os, "pidfd_open") else ():
                with contextlib.suppress(ProcessLookupError):
                    descriptor = os.pidfd_open(pid)
                    watched.callback(os.close, descriptor)
                    loop.add_reader(descriptor, self._gone.set)
                    watched.callback(loop.remove_reader, descriptor)
            missed = 0
            while missed < MISSED:
                try:
                    await asyncio.wait_for(self._gone.wait(), WATCH_SECONDS)
                    return
                except TimeoutError:
                    missed = 0 if await self.ready(WATCH_SECONDS) else missed + 1
            self._gone.set()

    def leave(self) -> None:
        """Ends this process and what is left of the session, without a word to it."""
        log.error("Ray is gone; this trainer ends, to be started again.")
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(GONE)


def _ask() -> bool:
    import ray

    try:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        stored = ray.put(np.zeros(1, np.uint8))
        return any(node["Alive"] for node in nodes) and bool(ray.get(stored, timeout=ASK_SECONDS).size)
    except Exception as error:
        log.warning("Ray does not answer: %s", type(error).__name__)
        return False


def oom_kills(root: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes of this container the kernel has killed for its memory; 0 where that is not told.

    cgroup v2 and v1 (kernel documentation: cgroup-v2.rst, memory.events; memory.txt, 10. OOM Control).
    """
    for name in ("memory.events", "memory/memory.oom_control"):
        try:
            fields = dict(line.split(" ", 1) for line in (root / name).read_text().splitlines())
            return int(fields["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def children() -> list[int]:
    """Process ids of control store and raylet, which this process has started; none where there is no /proc."""
    pids: list[str] = []
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            pids += listing.read_text().split()
    return [int(pid) for pid in pids if _name(pid) in _PROCESSES]


def _name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
