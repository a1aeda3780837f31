"""What each site has to do now, and who waits to hear of it: the long-polls and the watchers of runs.

A task stands on the board until the site has answered it, so that whatever a site reads there is still wanted
(after a restart of the hub also releases, which are kept in memory only). Cursors rise over restarts. Writers
are the scheduler's threads; waiters live on the event loop.
"""

import asyncio
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass
class _Place:
    cursor: int
    tasks: dict[str, bytes] = field(default_factory=dict)  # run -> Task as JSON
    seen: float = 0.0
    parked: int = 0


class Board:
    """One per hub. `clock` in seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._waiters: dict[str, weakref.WeakSet[asyncio.Event]] = {}  # an event lives as long as its waiter
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop on which waiters live; called once, before any of them."""
        self._loop = loop

    def set_tasks(self, run: str, tasks: Mapping[str, bytes]) -> None:
        """The tasks of `run` are these, by site; other sites have none of it. Wakes those that got a new one."""
        with self._lock:
            changed = [site for site, task in tasks.items() if self._place(site).tasks.get(run) != task]
            for site, place in self._places.items():
                if site not in tasks:
                    place.tasks.pop(run, None)
            for site in changed:
                self._place(site).tasks[run] = tasks[site]
                self._place(site).cursor += 1
        self._wake(f"site/{site}" for site in changed)

    def drop_task(self, run: str, site: str) -> None:
        """The site has answered; nobody needs to be told."""
        with self._lock:
            self._place(site).tasks.pop(run, None)

    def nudge(self, sites: Iterable[str]) -> None:
        """Something else than tasks changed for these sites (projects, runs that ended)."""
        sites = list(sites)
        with self._lock:
            for site in sites:
                self._place(site).cursor += 1
        self._wake(f"site/{site}" for site in sites)

    def tell(self, run: str) -> None:
        """Something about `run` changed: wakes its watchers."""
        self._wake([f"run/{run}"])

    def read(self, site: str) -> tuple[int, list[bytes]]:
        """Cursor and tasks as JSON."""
        with self._lock:
            place = self._place(site)
            return place.cursor, list(place.tasks.values())

    async def poll(self, site: str, after: int, seconds: float) -> tuple[int, list[bytes]]:
        """As `read`, once the cursor is no longer `after`, or when `seconds` have passed."""
        event = asyncio.Event()
        with self._lock:
            self._place(site).parked += 1
            self._waiters.setdefault(f"site/{site}", weakref.WeakSet()).add(event)
        try:
            if self.read(site)[0] == after:
                await self._until(event, seconds)
        finally:
            with self._lock:
                place = self._place(site)
                place.parked -= 1
                place.seen = self._clock()
        return self.read(site)

    def watcher(self, run: str) -> Callable[[float], Awaitable[bool]]:
        """Waits for a `tell(run)` that comes after this call: `await watcher(seconds)` says whether one came.

        Nothing is missed between the call and the wait
        """
        event, key = asyncio.Event(), f"run/{run}"
        with self._lock:
            self._waiters.setdefault(key, weakref.WeakSet()).add(event)

        async def wait(seconds: float) -> bool:
            return await self._until(event, seconds)

        return wait

    def saw(self, site: str, when: float) -> None:
        with self._lock:
            place = self._place(site)
            place.seen = max(place.seen, when)

    def last_seen(self, site: str) -> float:
        """When the site was last here; now if its long-poll is waiting."""
        with self._lock:
            place = self._place(site)
            return self._clock() if place.parked else place.seen

    @property
    def closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Ends all waits at once, and future ones, so that the server can stop."""
        self._closing = True
        with self._lock:
            keys = list(self._waiters)
        self._wake(keys)

    def _place(self, site: str) -> _Place:
        if site not in self._places:
            self._places[site] = _Place(cursor=int(time.time() * 1000))
        return self._places[site]

    async def _until(self, event: asyncio.Event, seconds: float) -> bool:
        if self._closing:
            return True
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _wake(self, keys: Iterable[str]) -> None:
        if self._loop is None:
            return
        with self._lock:
            events = [event for key in keys for event in self._waiters.get(key, ())]
        if events:
            self._loop.call_soon_threadsafe(_set_all, events)


def _set_all(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()
