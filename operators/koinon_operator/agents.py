"""What the agents say of themselves: connected, clock, projects that wait, last round. Asked every few seconds.

The agent may be away, old or wrong; whatever it answers, a report comes out and nothing is raised.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import httpx

from koinon.domain import canonical
from koinon_operator import metrics

log = logging.getLogger("koinon.operator")

_TIMEOUT = httpx.Timeout(3.0)
_MAX_BYTES = 2**20
_MAX_PENDING = 100
_MOST_SECONDS = 253_402_300_799  # the end of the year 9999, beyond which no time can be written


@dataclass(frozen=True)
class Report:
    """`reached`: whether the agent answered. Times in seconds since 1970. `trouble`: what keeps it from its hub."""

    reached: bool = False
    connected: bool = False
    trouble: str = ""
    version: str = ""
    clock_offset: float = 0.0
    pending: tuple[tuple[str, str], ...] = ()
    """(name, manifest's hash)"""
    last_round: tuple[str, str, int, float] | None = None
    """(project, run, round, time)"""


class Agents:
    def __init__(self, urls: Mapping[str, str]) -> None:
        """`urls` by home namespace."""
        self._urls = dict(urls)
        self._lock = threading.Lock()
        self._reports: dict[str, Report] = {}

    def report(self, home: str) -> Report | None:
        """None until the agent was asked for the first time."""
        with self._lock:
            return self._reports.get(home)

    def ask_all(self, changed: Callable[[str], None]) -> None:
        """Asks every agent, and calls `changed` with the namespace of each that says something new."""
        with ThreadPoolExecutor(min(8, len(self._urls)), "agents") as pool:
            for home, found in zip(self._urls, pool.map(ask, self._urls.values()), strict=True):
                metrics.CONNECTED.labels(hospital=home).set(found.connected)
                with self._lock:
                    before = self._reports.get(home)
                    self._reports[home] = found
                if before is None or _essence(before) != _essence(found):
                    changed(home)


def ask(url: str) -> Report:
    try:
        with httpx.stream("GET", f"{url}/v1/status", timeout=_TIMEOUT, trust_env=False) as response:
            text = b""
            for piece in response.iter_bytes():
                text += piece
                if len(text) > _MAX_BYTES:
                    raise ValueError("an answer of more than 1 MiB")
            return _parse(canonical.decode(text)) if response.status_code == 200 else Report()
    except Exception as error:
        log.debug("%s: %s: %s", url, type(error).__name__, error)
        return Report()


def _parse(said: Mapping[str, Any]) -> Report:
    pending = [(str(entry["name"])[:63], str(entry["hash"])[:64]) for entry in said.get("pending") or ()]
    last = said.get("last_round") or {}
    return Report(
        reached=True,
        connected=said.get("connected") is True,
        trouble=str(said.get("trouble") or "")[:500],
        version=str(said.get("version") or "")[:63],
        clock_offset=_number(said.get("clock_offset") or 0.0, -_MOST_SECONDS, _MOST_SECONDS),
        pending=tuple(sorted(pending)[:_MAX_PENDING]),
        last_round=_last_round(last) if last else None,
    )


def _last_round(last: Mapping[str, Any]) -> tuple[str, str, int, float]:
    number, when = int(_number(last["round"], 0, 2**53)), _number(last["time"], 0, _MOST_SECONDS)
    return str(last["project"])[:64], str(last["run"])[:64], number, when


def _number(value: Any, least: float, most: float) -> float:
    """Raises ValueError for what is not within: of what comes out sums are made, and times for the API server."""
    number = float(value)
    if not least <= number <= most:  # NaN is within nothing
        raise ValueError(f"{number} is absurd")
    return number


def _essence(report: Report) -> Report:
    """Without what changes at every question."""
    return replace(report, clock_offset=round(report.clock_offset / 60))
