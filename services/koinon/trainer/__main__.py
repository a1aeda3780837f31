"""`python -m koinon.trainer --socket PATH`: one hospital's trainer with its own Ray, or in one that runs already:
`--listen HOST:PORT`, as a job of that cluster, for whoever has the cluster's token (RAY_AUTH_TOKEN).

Prints one JSON line when it serves. Ends with status 70 when Ray is gone, and the agent starts it again.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn

from koinon.trainer import cluster

BIND_SECONDS = 15.0  # for a trainer before this one to leave its port


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="koinon.trainer", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", type=Path, help="Unix socket to serve on, with a Ray of its own")
    where.add_argument("--listen", metavar="HOST:PORT", help="serve there, in the Ray that runs here")
    default = Path(tempfile.gettempdir(), "koinon")
    parser.add_argument("--temp", type=Path, default=default, help="short folder for Ray's session and packages")
    parser.add_argument("--cpus", type=int, default=1, help="processors for a Ray of its own")
    parser.add_argument("--store-bytes", type=int, default=2**30, help="size of that Ray's object store")
    parser.add_argument("--seconds", type=float, default=3_600.0, help="a round may take, unless it says otherwise")
    parser.add_argument("--max-bytes", type=int, default=16 * 2**30, help="a request may have")
    parser.add_argument("--guard", action="store_true", help="end when standard input ends, that is with the parent")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if options.guard:
        threading.Thread(target=_guard, name="guard", daemon=True).start()
    token = None
    try:
        # In the main thread: Ray's processes die with the thread that started them.
        if options.socket is not None:
            cluster.start(options.temp, cpus=options.cpus, store_bytes=options.store_bytes)
        else:
            token = cluster.join()
    except ValueError as error:
        sys.exit(f"koinon.trainer: {error}")
    from koinon.trainer import server  # imports ray, which must find its settings in the environment

    app = server.create(server.Settings(_scratch(options.temp), options.seconds, options.max_bytes, token))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)  # instead of Ray's, which ends the process before its session is stopped
    listener = _unix(options.socket) if options.socket is not None else _tcp(options.listen)
    with contextlib.suppress(_Stop):
        asyncio.run(_serve(uvicorn.Server(_config(app)), listener))
    _end(options.socket)


def _scratch(temp: Path) -> Path:
    """An empty folder for packages; what a trainer left there that was killed goes."""
    scratch = temp / "packages"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True)
    return scratch


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


def _unix(path: Path) -> socket.socket:
    """For this user alone from its first moment."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(64)
    return listener


def _tcp(address: str) -> socket.socket:
    """Waits a little if the port is taken. Raises SystemExit if it stays so."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + BIND_SECONDS
    while True:
        try:
            return socket.create_server((host.strip("[]"), int(port)), backlog=64)
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() > until:
                sys.exit(f"koinon.trainer: cannot listen on {address}: {error}")
        time.sleep(0.2)


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serves until a signal asks to end."""
    where = listener.getsockname()
    print(json.dumps({"ready": True, "socket": where, "pid": os.getpid()}), flush=True)
    await server.serve(sockets=[listener])


def _guard() -> None:
    while sys.stdin.buffer.read(4_096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end(path: Path | None) -> None:
    """Stops Ray; threads that still wait for a round would otherwise keep the process."""
    import ray

    ray.shutdown()
    if path is not None:
        path.unlink(missing_ok=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
