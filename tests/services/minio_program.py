"""The MinIO program for tests: `minio` of the PATH, or built from its Go module; absent both, the tests fail.

The built program stays in the user's cache ($XDG_CACHE_HOME/koinon/bin), named by the hash of what it was built
from. Only the standard library is needed here: the cluster's node takes the same program without the environment.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

_MODULE = Path(__file__).parent / "minio_build"
_BUILD = ["build", "-mod=readonly", "-trimpath", "-ldflags=-s -w"]
_STATIC = {"CGO_ENABLED": "0"}  # it runs in an image without a C library, too


def program() -> Path:
    """Raises RuntimeError if there is no MinIO and no Go to build one, or the build fails."""
    on_path = shutil.which("minio")
    if on_path:
        return Path(on_path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "koinon" / "bin"
    cache.mkdir(parents=True, exist_ok=True)
    sources = b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    target = cache / f"minio-{hashlib.sha256(repr((_BUILD, _STATIC, sources)).encode()).hexdigest()[:16]}"
    with (cache / "minio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be building it
        if not target.exists():
            _build(target)
    return target


def _build(target: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("MinIO is absent: put minio on the PATH, or Go, to build it")
    draft = target.with_suffix(".draft")
    command = [go, *_BUILD, "-o", str(draft), "github.com/minio/minio"]
    environment = {**os.environ, **_STATIC}
    done = subprocess.run(command, cwd=_MODULE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"MinIO cannot be built from its Go module:\n{done.stderr[-2_000:]}")
    draft.replace(target)
