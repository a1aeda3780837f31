"""Seconds of things that are compared, taken in turn in one run, and lines that set one rate against another."""

import time
from collections.abc import Callable
from dataclasses import dataclass


def side_by_side(*works: Callable[[], object], runs: int = 7) -> list[float]:
    """Seconds of the fastest of `runs` calls of each, after one to warm up.

    The fastest, since other processes only ever add time; in turn, so that a busy minute strikes all of them.
    """
    for work in works:
        work()
    fastest = [float("inf")] * len(works)
    for _ in range(runs):
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            fastest[index] = min(fastest[index], time.perf_counter() - start)
    return fastest


@dataclass(frozen=True)
class Ratio:
    """`rate` of `of`, both in payload bytes a second, and the smallest that is good enough (None: for information)."""

    name: str
    rate: float
    of: float
    target: float | None = None

    @property
    def met(self) -> bool:
        return self.target is None or self.rate / self.of >= self.target

    def __str__(self) -> str:
        goal = "" if self.target is None else f"   target {self.target:.2f} {'met' if self.met else 'MISSED'}"
        rates = f"{self.rate / 1e9:6.2f} of {self.of / 1e9:5.2f} GB/s"
        return f"{self.name:<60}{rates}{self.rate / self.of:6.2f}{goal}"
