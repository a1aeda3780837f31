"""Charts rendered by a real helm, without a cluster, and what to look for in the objects."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
CHARTS = ROOT / "charts"
NAMES = ("koinon-hub", "koinon-site")
_MODULE = ROOT / "tests" / "cluster" / "node" / "programs" / "addons"
Object = dict[str, Any]

SITE: Object = {  # the least that a hospital must say
    "site": {"root": "ab" * 32},
    "hub": {"url": "https://hub.example.org", "cidrs": ["192.0.2.7/32"]},
    "datasets": [{"name": "heart", "claimName": "heart", "path": "heart.csv"}],
    "kuberay": {"check": False},
    "apiServer": {"cidrs": ["192.0.2.1/32"]},
}
TRIAL: Object = {"tls": {"generate": True}, "postgresql": {"enabled": True}, "minio": {"enabled": True}}
EVERYTHING = [
    (path.parents[1].name, path.stem.removesuffix("-values"), yaml.safe_load(path.read_text()))
    for path in sorted(CHARTS.glob("*/ci/*-values.yaml"))
]
CASES = [*EVERYTHING, ("koinon-site", "least", SITE), ("koinon-hub", "trial", TRIAL)]
"""(chart, name, values)"""
IDS = [f"{chart}-{name}" for chart, name, _ in CASES]


class Refused(Exception):
    """helm did not render it; the text is helm's."""


@cache
def program() -> str:
    """helm of the PATH or of the test node, or built from its Go module. Raises RuntimeError if none is to be had."""
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "koinon"
    found = shutil.which("helm") or shutil.which("helm", path=str(cache_folder / "cluster" / "bin"))
    if found:
        return found
    (cache_folder / "bin").mkdir(parents=True, exist_ok=True)
    sources = hashlib.sha256(b"".join((_MODULE / name).read_bytes() for name in ("go.mod", "go.sum")))
    target = cache_folder / "bin" / f"helm-{sources.hexdigest()[:16]}"
    with (cache_folder / "bin" / "helm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be building it
        if not target.exists():
            _build(target)
    return str(target)


def _build(target: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise RuntimeError("helm is absent: put helm on the PATH, or Go, to build it")
    draft = target.with_suffix(".draft")
    command = [
        go,
        "build",
        "-mod=readonly",
        "-trimpath",
        "-ldflags=-s -w",
        "-o",
        str(draft),
        "helm.sh/helm/v4/cmd/helm",
    ]
    done = subprocess.run(command, cwd=_MODULE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"helm cannot be built from its Go module:\n{done.stderr[-2_000:]}")
    draft.replace(target)


def helm(*arguments: str, stdin: str = "") -> str:
    """What helm prints. Raises Refused with what it says if it fails."""
    aside = {f"HELM_{kind}_HOME": str(ROOT / "build" / "cache" / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": os.devnull, **aside}
    done = subprocess.run(
        [program(), *arguments], input=stdin, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def text(
    chart: str,
    values: Mapping[str, Any],
    *options: str,
    release: str = "it",
    namespace: str = "lyon",
    folder: Path = CHARTS,
) -> str:
    """Everything that a release of the chart has, hooks included. Raises Refused."""
    return _rendered(folder / chart, yaml.safe_dump(dict(values)), release, namespace, options)


@cache  # many tests look at the same release
def _rendered(chart: Path, values: str, release: str, namespace: str, options: tuple[str, ...]) -> str:
    return helm("template", release, str(chart), "-n", namespace, "-f", "-", *options, stdin=values)


def objects(chart: str, values: Mapping[str, Any], *options: str, **where: Any) -> list[Object]:
    """The same, parsed."""
    return [found for found in yaml.safe_load_all(text(chart, values, *options, **where)) if found]


def one(found: list[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    """The only object of that kind, name and (if it says one) namespace."""
    fitting = [
        o for o in found
        if o["kind"] == kind and o["metadata"]["name"] == name and o["metadata"].get("namespace") == namespace
    ]  # fmt: skip
    assert len(fitting) == 1, f"{len(fitting)} of {kind} {namespace}/{name}"
    return fitting[0]


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod that an object makes: its name, and its spec."""
    for o in found:
        name = f"{o['kind']} {o['metadata']['name']}"
        if o["kind"] == "Pod":
            yield name, o["spec"]
        elif "template" in o.get("spec", {}):
            yield name, o["spec"]["template"]["spec"]


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def images(value: Any) -> Iterator[str]:
    """Every image that objects name, at any depth: of containers, and of the Site."""
    if isinstance(value, list):
        for item in value:
            yield from images(item)
    elif isinstance(value, dict) and value.get("kind") != "CustomResourceDefinition":
        for key, item in value.items():
            if key == "image" and isinstance(item, str):
                yield item
            elif key == "images":
                yield from item.values()
            elif key == "site.json":
                yield from images(yaml.safe_load(item))
            else:
                yield from images(item)


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> Object:
    """`base` with `more` laid over it, as helm lays values."""
    found = dict(base)
    for key, value in more.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found
