"""A queue of keys for threads: one of a lane at a time, later wishes merged, failures tried again ever later.

`add` wishes for a key now, `add_after` later. `get` hands out a key, and nobody else gets it, nor another of its lane,
until `done` or `failed`. A key that is added meanwhile comes again after that.
"""

import heapq
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 60.0


class Queue(Generic[K]):
    def __init__(
        self, *, lane: Callable[[K], object] = lambda key: key, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lane = lane
        self._clock = clock
        self._ready: dict[K, None] = {}  # in order of arrival
        self._busy: set[K] = set()
        self._lanes: set[object] = set()
        self._again: set[K] = set()  # wished for while busy
        self._due: dict[K, float] = {}
        self._later: list[tuple[float, int, K]] = []
        self._count = 0
        self._failures: dict[K, int] = {}
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many keys wait to be handed out now."""
        with self._changed:
            self._take_due()
            return len(self._ready) + len(self._again)

    def add(self, key: K) -> None:
        with self._changed:
            self._add(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Of several times for one key the earliest counts."""
        with self._changed:
            due = self._clock() + seconds
            if due >= self._due.get(key, float("inf")):
                return
            self._due[key] = due
            self._count += 1
            heapq.heappush(self._later, (due, self._count, key))
            self._changed.notify()

    def get(self, timeout: float | None = None) -> K | None:
        """The next key, or None after `timeout` seconds or once closed."""
        end = None if timeout is None else self._clock() + timeout
        with self._changed:
            while not self._closed:
                self._take_due()
                key = next((key for key in self._ready if self._lane(key) not in self._lanes), None)
                if key is not None:
                    del self._ready[key]
                    self._busy.add(key)
                    self._lanes.add(self._lane(key))
                    return key
                now, first = self._clock(), self._later[0][0] if self._later else None
                if end is not None and now >= end:
                    return None
                waits = [when - now for when in (end, first) if when is not None]
                self._changed.wait(min(waits) if waits else None)
            return None

    def done(self, key: K, *, after: float | None = None) -> None:
        """The key went well; `after` seconds it should come again at the latest."""
        with self._changed:
            self._failures.pop(key, None)
            self._release(key)
            if after is not None:
                self.add_after(key, after)

    def failed(self, key: K) -> float:
        """The key failed and comes again. Returns in how many seconds."""
        with self._changed:
            count = self._failures.get(key, 0)
            self._failures[key] = count + 1
            self._release(key)
            seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0**count)
            self.add_after(key, seconds)
            return seconds

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _add(self, key: K) -> None:
        if key in self._busy:
            self._again.add(key)
        elif key not in self._ready:
            self._ready[key] = None
            self._changed.notify()

    def _release(self, key: K) -> None:
        self._busy.discard(key)
        self._lanes.discard(self._lane(key))
        if key in self._again:
            self._again.discard(key)
            self._add(key)
        self._changed.notify()  # others of its lane may go on

    def _take_due(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:  # otherwise an earlier time has replaced it
                del self._due[key]
                self._add(key)
