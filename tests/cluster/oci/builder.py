"""Build targets of the Dockerfile with buildah; what has not changed since is not built again."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import lifecycle
from tests.cluster.oci.layout import Layout

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "tests/cluster/node/images.sh"
BASE = "localhost/koinon-base:test"
TARGETS = ("gateway", "agent", "operator", "worker")
SHARED = (".dockerignore", "Dockerfile", "LICENSE", "README.md", "pyproject.toml", "operators", "services")
BOUND = 18 * 2**30  # bytes of buildah's storage; the steps of all four images are about 8 GB
AUTHORITY = "/run/build/ca.crt"  # where the build finds the CA of the registries that this machine uses


def name(target: str) -> str:
    return f"localhost/koinon-{target}:test"


def environment() -> dict[str, str]:
    """The node's own: buildah's storage is in the cache, and so is what it puts aside."""
    temporary = lifecycle.folder() / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return os.environ | lifecycle.environment() | {"TMPDIR": str(temporary)}


def layout() -> Layout:
    return Layout(lifecycle.folder() / "oci")


@contextmanager
def alone() -> Iterator[None]:
    """One process at a time changes the images; others wait."""
    with (lifecycle.folder() / "oci.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(*command: str | Path) -> str:
    """What a program printed. Raises RuntimeError with that if it fails."""
    done = subprocess.run(command, env=environment(), cwd=ROOT, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def inputs(target: str) -> Iterator[Path]:
    """Every file that an image is made of."""
    for part in (*SHARED, f"locks/{target}.txt", "locks/image.txt", "locks/uv.txt"):
        files = sorted((ROOT / part).rglob("*")) if (ROOT / part).is_dir() else [ROOT / part]
        yield from (file for file in files if file.is_file() and "__pycache__" not in file.parts)


def key(target: str) -> str:
    """A hash of all that an image is made of: its files, their modes, and the base image."""
    total = hashlib.sha256(run("buildah", "inspect", "--type=image", "--format={{.FromImageID}}", BASE).encode())
    for path in inputs(target):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(ROOT)} {path.stat().st_mode & 0o111:o} {content}\n".encode())
    return total.hexdigest()


def build(target: str) -> bool:
    """Builds an image and puts it into the layout. False if one of these very inputs is there."""
    with alone():
        run(IMAGES, "base")
        wanted = key(target)
        if layout().key(name(target)) == wanted:
            return False
        tidy()
        run("buildah", "bud", "--isolation=chroot", "--layers", "--timestamp=0", *options(target), ROOT)
        push = ("buildah", "push", "--disable-compression", name(target))
        layout().take(name(target), wanted, lambda folder: run(*push, f"dir:{folder}"))
        return True


def tidy() -> None:
    """Removes what builds that were killed left, and all steps of earlier builds when they have become too many."""
    for path in Path(environment()["TMPDIR"]).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    listed = json.loads(run("buildah", "containers", "--json") or "null") or []
    if stages := [found["id"] for found in listed if not found["imagename"]]:
        run("buildah", "rm", *stages)
    used = int(run("du", "-s", "--block-size=1", lifecycle.folder() / "buildah").split()[0])
    if used > BOUND:
        run("buildah", "rmi", "--prune", "--force")


def options(target: str) -> list[str]:
    arguments = {"BASE": BASE, "ACCELERATOR": "cpu", "VERSION": version(), "REVISION": revision()}
    mounts = []
    if authority := os.environ.get("SSL_CERT_FILE"):
        mounts += [f"--volume={Path(authority).resolve()}:{AUTHORITY}:ro"]
        arguments |= {"SSL_CERT_FILE": AUTHORITY, "PIP_CERT": AUTHORITY}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    downloads = Path(os.environ.get("UV_CACHE_DIR") or cache / "uv")
    if downloads.is_dir():  # as where this repository's own environment was installed
        mounts += [f"--volume={downloads}:/var/cache/uv"]
    given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    return [f"--target={target}", f"--tag={name(target)}", *given, *mounts]


def version() -> str:
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return found


def revision() -> str:
    """The commit, marked if files differ from it. An image outlives commits that change none of its files."""
    return run("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").strip()
