"""Do database, artifact store and disk answer? Asked for /readyz and for Prometheus."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio
import anyio.to_thread

from koinon.domain.errors import KoinonError

OK = "ok"


@dataclass(frozen=True)
class Outcome:
    """`text`: "ok", or what is wrong. `seconds` it took, or has taken until now."""

    text: str
    seconds: float

    @property
    def ok(self) -> bool:
        return self.text == OK


class Probes:
    """Each check runs in a thread of its own, and only once at a time: one that hangs holds up nothing else."""

    def __init__(self, checks: Mapping[str, Callable[[], None]]) -> None:
        """A check raises KoinonError or OSError if its part is away."""
        self._checks = dict(checks)
        self._begun: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[Outcome]] = {}
        self._limiters = {part: anyio.CapacityLimiter(1) for part in checks}

    async def look(self, patience: float) -> dict[str, Outcome]:
        """By part, after at most `patience` seconds."""
        for part in self._checks:
            if part not in self._tasks or self._tasks[part].done():
                self._begun[part] = time.perf_counter()
                self._tasks[part] = asyncio.ensure_future(self._try(part))
        tasks = dict(self._tasks)
        await asyncio.wait(tasks.values(), timeout=patience)
        return {part: task.result() if task.done() else self._silent(part) for part, task in tasks.items()}

    def _silent(self, part: str) -> Outcome:
        seconds = time.perf_counter() - self._begun[part]
        return Outcome(f"It has not answered for {seconds:.0f} s.", seconds)

    async def _try(self, part: str) -> Outcome:
        check, limiter = self._checks[part], self._limiters[part]
        text = await anyio.to_thread.run_sync(_outcome, check, limiter=limiter, abandon_on_cancel=True)
        return Outcome(text, time.perf_counter() - self._begun[part])


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except KoinonError as error:
        return error.what
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return OK
