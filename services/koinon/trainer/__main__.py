"""`python -m koinon.trainer --socket PATH --temp FOLDER`: one hospital's trainer with its own Ray.

Prints one JSON line when it serves. Ends with status 70 when Ray is gone, and the agent starts it again.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from koinon.trainer import cluster


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="koinon.trainer", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to serve on")
    parser.add_argument("--temp", type=Path, required=True, help="short folder for Ray's session; its maker removes it")
    parser.add_argument("--cpus", type=int, default=1, help="processors for Ray")
    parser.add_argument("--store-bytes", type=int, default=2**30, help="size of Ray's object store")
    parser.add_argument("--seconds", type=float, default=3_600.0, help="a round may take, unless it says otherwise")
    parser.add_argument("--max-bytes", type=int, default=16 * 2**30, help="a request may have")
    parser.add_argument("--guard", action="store_true", help="end when standard input ends, that is with the parent")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if options.guard:
        threading.Thread(target=_guard, name="guard", daemon=True).start()
    try:
        # In the main thread: Ray's processes die with the thread that started them.
        cluster.start(options.temp, cpus=options.cpus, store_bytes=options.store_bytes)
    except ValueError as error:
        sys.exit(f"koinon.trainer: {error}")
    from koinon.trainer import server  # imports ray, which must find its settings in the environment

    scratch = options.temp / "packages"
    scratch.mkdir(mode=0o700, exist_ok=True)
    app = server.create(server.Settings(scratch, options.seconds, options.max_bytes))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)  # instead of Ray's, which ends the process before its session is stopped
    with contextlib.suppress(_Stop):
        asyncio.run(_serve(uvicorn.Server(_config(app)), options.socket))
    _end(options.socket)


class _Stop(BaseException):
    """A signal asked to end. uvicorn raises the signal again once it has closed its connections."""


def _stop(number: int, frame: object) -> None:
    raise _Stop


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=75,
    )


async def _serve(server: uvicorn.Server, path: Path) -> None:
    """Serves until a signal asks to end. The socket is for this user alone from its first moment."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(64)
    print(json.dumps({"ready": True, "socket": str(path), "pid": os.getpid()}), flush=True)
    await server.serve(sockets=[listener])


def _guard() -> None:
    while sys.stdin.buffer.read(4_096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end(path: Path) -> None:
    """Stops Ray; threads that still wait for a round would otherwise keep the process."""
    import ray

    ray.shutdown()
    path.unlink(missing_ok=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
