"""`koinon site doctor`: what must hold before a site can serve, each with what to do if it does not."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from koinon.agent import config, link, sandbox, setup
from koinon.agent.config import Folder
from koinon.artifacts import keyfiles
from koinon.domain import errors, httpsig, keys

_SIGNS = {"good": "ok   ", "warn": "note ", "bad": "BAD  "}
_LOW_DISK = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """One examination: `state` good, warn (works, but know it) or bad (repair it)."""

    what: str
    state: str
    said: str
    todo: str = ""

    def line(self) -> str:
        return f"{_SIGNS[self.state]}{self.what}: {self.said}" + (f" {self.todo}" if self.todo else "")

    def as_json(self) -> dict[str, str]:
        return {"what": self.what, "state": self.state, "said": self.said, "todo": self.todo}


def examine(folder: Path, file: Path | None = None) -> list[Finding]:
    """All findings. Raises NotFound if `folder` is no site's.

    In Kubernetes data and walls are the cluster's: `kubectl koinon doctor` examines them.
    """
    paths, settings = config.load(folder, file)
    embedded = settings.kubernetes is None
    return [
        *_keys(paths),
        *(_data(settings, paths) if embedded else ()),
        _disk(paths),
        *_hub(settings),
        *(walls() if embedded else ()),
    ]


def _keys(paths: Folder) -> Iterator[Finding]:
    for name, path in (("agent's signing key", paths.signing_key), ("agent's recipient key", paths.recipient_key)):
        if not path.exists():
            yield Finding(name, "bad", f"{path} is missing.", "koinon site init")
        elif keyfiles.excess(path.stat()):
            yield Finding(name, "bad", "others can read it.", f"chmod 600 {path}")
        else:
            yield Finding(name, "good", "readable by its owner alone")
    try:
        certificate = setup.read_certificate(paths)
    except errors.KoinonError as error:
        yield Finding("certificate", "bad", str(error))
        return
    left = (certificate.not_after - time.time()) / 86_400
    state = "bad" if left <= 0 else "warn" if left < 30 else "good"
    yield Finding("certificate", state, f"{left:.0f} days left", "" if state == "good" else "koinon site init --renew")
    if paths.root_key.exists():
        yield Finding(
            "root key", "warn", "it lies in this folder.", "Keep it offline: only grants and renewals need it."
        )


def _data(settings: config.Settings, paths: Folder) -> Iterator[Finding]:
    if not settings.datasets:
        yield Finding("data", "bad", "no data set is declared.", "koinon site init DIR --data NAME=FILE")
    for name in settings.datasets:
        path = settings.dataset(name, paths)
        if not path.is_file() or not os.access(path, os.R_OK):
            yield Finding(
                f"data set {name}", "bad", f"{path} cannot be read.", "Correct site.yaml or the file's rights."
            )
        else:
            yield Finding(f"data set {name}", "good", f"{path.stat().st_size} bytes")


def _disk(paths: Folder) -> Finding:
    free = shutil.disk_usage(paths.path).free
    return Finding("disk", "good" if free > _LOW_DISK else "warn", f"{free / 10**9:.1f} GB free")


def _hub(settings: config.Settings) -> Iterator[Finding]:
    try:
        with link.connection(settings.hub, authority=settings.authority, proxy=settings.proxy, timeout=10.0) as client:
            response = client.get("/v1/hub")
            about = response.raise_for_status().json()
    except (httpx.HTTPError, ValueError, errors.KoinonError) as error:
        why = link.reason(error) if isinstance(error, httpx.TransportError) else str(error) or type(error).__name__
        yield Finding("hub", "bad", f"{settings.hub} does not answer ({why}).", "Is it running?")
        return
    yield Finding("hub", "good", f"{settings.hub} answers; version {about.get('version', '?')}")
    yield Finding("fingerprint", "good", f"{keys.fingerprint(str(about['signing']))}: compare it by telephone")
    if "Date" in response.headers:
        offset = time.time() - parsedate_to_datetime(response.headers["Date"]).timestamp()
        bad = abs(offset) > httpsig.WINDOW
        said = f"{offset:+.0f} s against the hub's"
        yield Finding("clock", "bad" if bad else "good", said, "Set this machine's clock." if bad else "")


def walls() -> Iterator[Finding]:
    """Which walls this machine can build around research code, found by building them."""
    names = {
        "network": "research code reaches no network",
        "processes": "research code sees and survives no other process",
        "files": "research code sees neither keys nor other folders",
    }
    try:
        found = sandbox.probe()
    except errors.KoinonError as error:
        found = dict.fromkeys(names, str(error))
    for name, meaning in names.items():
        stands = found.get(name, "not offered")
        if stands is True:
            yield Finding(f"wall {name}", "good", meaning)
        else:
            yield Finding(f"wall {name}", "warn", f"MISSING ({stands}): run only code you trust here.")
