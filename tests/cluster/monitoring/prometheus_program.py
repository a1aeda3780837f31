"""Prometheus and promtool for tests: those of the PATH or of the test node's cache, else built from their Go module.

The module is that of the test node's programs, so that all tests ask the same Prometheus.
"""

import fcntl
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

_MODULE = Path(__file__).parents[1] / "node/programs/addons"
_BUILD = ["-mod=readonly", "-trimpath", "-ldflags=-s -w", "-tags=remove_all_sd"]


@cache
def program(name: str) -> Path:
    """`prometheus` or `promtool`. Raises RuntimeError if there is none and no Go to build it, or the build fails."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "koinon"
    found = shutil.which(name) or shutil.which(name, path=str(cache / "cluster/bin"))
    return Path(found) if found else _built(name, cache / "bin")


def _built(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "prometheus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be building it
        if not (folder / name).exists():
            go = shutil.which("go")
            if go is None:
                raise RuntimeError(f"{name} is absent: put it on the PATH, or Go, to build it")
            command = [go, "build", *_BUILD, "-o", str(folder), f"github.com/prometheus/prometheus/cmd/{name}"]
            environment = {**os.environ, "CGO_ENABLED": "0"}
            done = subprocess.run(command, cwd=_MODULE, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{name} cannot be built from its Go module:\n{done.stderr[-2_000:]}")
    return folder / name
