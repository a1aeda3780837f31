"""The rounds of a run, read from its events: the same fold whether they come one by one or all at once."""

import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """One finished round. `metrics` score the model that the round started from, the mean over the sites.

    `kind` is init, train or evaluate; `model` counts the commits of train rounds (0: the first weights, -1: none yet).
    `seconds` per part of the round, one after the other; `site_seconds` what each site told of its own steps; `bytes`
    uploaded by all sites; `sites` whose update is in the sum, `missing` members that are not. `opened` and `closed` in
    seconds since 1970. `void`: shares were released but too few to open, the model stayed.
    """

    round: int
    kind: str
    model: int
    metrics: dict[str, float]
    pooled: dict[str, float]
    seconds: dict[str, float]
    site_seconds: dict[str, dict[str, float]]
    bytes: int
    sites: tuple[str, ...]
    missing: tuple[str, ...]
    opened: float
    closed: float
    void: bool = False

    @property
    def total_seconds(self) -> float:
        return max(0.0, self.closed - self.opened)

    @property
    def slowest(self) -> str:
        """The site whose keys came last: the others waited for it."""
        arrivals = {site: took["keys"] for site, took in self.site_seconds.items() if "keys" in took}
        return max(arrivals, key=lambda site: arrivals[site]) if arrivals else ""


class Fold:
    """Takes a run's events in their order and gives a Step for each that ends a round."""

    def __init__(self, members: tuple[str, ...]) -> None:
        self.members = members
        self.last = 0  # number of the last event of the chain
        self._kinds: dict[int, str] = {}
        self._opened: dict[int, float] = {}

    def take(self, event: dict[str, Any]) -> Step | None:
        """An event of the chain that came before, as after a reconnection, gives nothing again."""
        number, kind, data = int(event.get("seq", 0)), str(event.get("kind", "")), event.get("data") or {}
        if not kind or kind == "waiting" or number <= self.last:
            return None
        self.last = number
        moment = int(event["time"]) / 1_000
        if kind == "round.opened":
            self._kinds[int(data["round"])] = str(data["kind"])
            self._opened[int(data["round"])] = moment
        if kind in ("round.committed", "round.void"):
            return self._step(int(data["round"]), data, moment, void=kind == "round.void")
        return None

    def _step(self, number: int, data: dict[str, Any], closed: float, *, void: bool) -> Step:
        kind = self._kinds.get(number, str(data.get("kind", "train")))
        scores, sites = data.get("metrics") or {}, tuple(data.get("survivors") or ())
        told = {name: float(seconds) for name, seconds in (data.get("seconds") or {}).items()}
        return Step(
            round=number,
            kind=kind,
            model=int(data.get("scored", -1)),
            metrics={name: float(v["mean"]) for name, v in scores.items() if "mean" in v},
            pooled={name: float(v["pooled"]) for name, v in scores.items() if "pooled" in v},
            seconds={name: took for name, took in told.items() if "." not in name and name != "round"},
            site_seconds=_by_site(told),
            bytes=int(data.get("bytes") or 0),
            sites=sites,
            missing=() if kind == "init" or void else tuple(site for site in self.members if site not in sites),
            opened=self._opened.get(number, closed),
            closed=closed,
            void=void,
        )


def _by_site(told: dict[str, float]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, seconds in told.items():
        site, separator, part = name.partition(".")
        if separator:
            found.setdefault(site, {})[part] = seconds
    return found


def describe_waits(waits: list[dict[str, Any]]) -> str:
    """For whom, since when, until when, why: one phrase for all who are awaited for the same reason."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for wait in waits:
        groups.setdefault((wait.get("why"), wait.get("since"), wait.get("until")), []).append(str(wait.get("for")))
    phrases = []
    for (why, since, until), names in groups.items():
        phrase = f"waiting for {', '.join(names)}" + (f": {why}" if why else "")
        phrase += f", since {_clock(since)}" if since else ""
        phrases.append(phrase + (f", until {_clock(until)}" if until else ""))
    return "; ".join(phrases)


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(float(seconds)))
