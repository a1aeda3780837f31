"""Keeps one run going: look, decide, apply; and again when a step failed because something was away."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from koinon.aggregation.spool import Spool
from koinon.domain.errors import Conflict, KoinonError, Unavailable
from koinon.domain.run import RunState
from koinon.domain.wire import SiteStatus
from koinon.scheduler import look, progress, tasks, waits
from koinon.scheduler.board import Board
from koinon.scheduler.decide import Commit, Fold, decide, wake_at
from koinon.scheduler.look import Pace
from koinon.scheduler.progress import Failure, Progress
from koinon.scheduler.steps import Observer, Steps
from koinon.scheduler.view import RunView
from koinon.scheduler.waits import Wait
from koinon.store.store import Store

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
_GIVE_UP = 5  # times that a step may fail for a reason nobody foresaw
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tools:
    """What all keepers share. `lost` is called once another hub has taken over the database."""

    store: Store
    spool: Spool
    steps: Steps
    board: Board
    observer: Observer
    pool: ThreadPoolExecutor
    stopping: asyncio.Event
    clock: Callable[[], float]
    last_seen: Callable[[str], float]
    lost: Callable[[], None]
    pace: Pace
    booted: float

    def check_fence(self) -> None:
        """A Conflict may mean that another hub took over; then this one must stop."""
        try:
            self.store.set_meta("alive", str(int(self.clock())))
        except Conflict:
            self.lost()
        except Unavailable:
            return


class Keeper:
    """One per active run. `wake` may be set at any time, on the event loop."""

    def __init__(self, state: Progress, tools: Tools) -> None:
        self.state = state
        self.wake = asyncio.Event()
        self._waits: list[Wait] = []
        self._tools = tools
        self._failures = 0

    async def tend(self) -> None:
        """Until the run is over or the hub stops."""
        loop, tools = asyncio.get_running_loop(), self._tools
        while not tools.stopping.is_set():
            self.wake.clear()
            try:
                until = await loop.run_in_executor(tools.pool, self._step)
                self._failures, self.state.failure = 0, None
            except Exception as error:
                pause = await loop.run_in_executor(tools.pool, self._failed, error)
                tools.board.tell(self.state.run.id)
                await _wait(tools.stopping, pause)
                continue
            if until is None:
                return
            await _wait(self.wake, max(0.0, until - tools.clock()))

    def doubt(self) -> None:
        """The store may say something else by now."""
        with self.state.lock:
            self.state.stale, self.state.published = True, ()

    def view(self, now: float) -> RunView:
        return look.view(self.state, now, self._tools.pace, self._tools.booted, self._tools.last_seen)

    def waits(self, statuses: Mapping[str, SiteStatus | None]) -> list[Wait]:
        """For whom the run waits now; `statuses` is what sites said of themselves last."""
        with self.state.lock:
            return self._look_at_waits(statuses)

    def latest_waits(self, statuses: Mapping[str, SiteStatus | None]) -> list[Wait]:
        """As `waits`, without waiting for a step that is under way: then what was true before it."""
        if self.state.lock.acquire(blocking=False):
            try:
                self._waits = self._look_at_waits(statuses)
            finally:
                self.state.lock.release()
        return self._waits

    def _look_at_waits(self, statuses: Mapping[str, SiteStatus | None]) -> list[Wait]:
        return waits.of(self.state, lambda: self.view(self._tools.clock()), statuses, self._tools.last_seen)

    def refresh(self) -> None:
        """Reads the store if that is due. Raises Unavailable."""
        with self.state.lock:
            if self.state.stale:
                progress.load(self.state, self._tools.store, self._tools.spool)

    def _step(self) -> float | None:
        """Until the run waits: the time to look again; None once the run is over."""
        state, tools = self.state, self._tools
        while not tools.stopping.is_set():
            with state.lock:
                self.refresh()
                if state.over:
                    self._end()
                    return None
                now = tools.clock()
                view = self.view(now)
                actions = decide(view, now)
                slow = [action for action in actions if isinstance(action, Fold | Commit)]
                for action in actions:
                    if action not in slow:
                        tools.steps.apply(state, action)
                if not actions:
                    self._publish()
                    return wake_at(view, now)
            for action in slow:  # without the lock: other sites' messages are taken meanwhile
                tools.steps.apply(state, action)
            tools.board.tell(state.run.id)
        return tools.clock()

    def _failed(self, error: Exception) -> float:
        """Notes why a step failed and in how many seconds it is tried again; ends the run if that is hopeless."""
        state, tools, now = self.state, self._tools, self._tools.clock()
        self._failures += 1
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10), _LONGEST_PAUSE)
        text = error.what if isinstance(error, KoinonError) else f"A step failed ({type(error).__name__})."
        with state.lock:
            since = state.failure.since if state.failure else now
            state.failure = Failure(text, since, now + pause)
        self.doubt()
        tools.observer.step_failed()
        if isinstance(error, Unavailable | OSError):
            _log.warning("run %s: %s Trying again in %.1f s.", state.run.id, text, pause)
            return pause
        _log.error("run %s: a step failed", state.run.id, exc_info=error)
        if isinstance(error, Conflict):
            tools.check_fence()
        elif isinstance(error, KoinonError) or self._failures >= _GIVE_UP:
            reason = f"{text} {error.todo}".strip() if isinstance(error, KoinonError) else text
            try:
                tools.store.set_run_state(state.run.id, RunState.FAILED, reason)
            except KoinonError as again:
                _log.warning("run %s: its failure could not be noted: %s", state.run.id, again)
        return pause

    def _end(self) -> None:
        state, board = self.state, self._tools.board
        self._tools.steps.clean_run(state.run.id)
        self._tools.observer.run_ended(state.run.state)
        board.set_tasks(state.run.id, {})
        board.nudge(member.site for member in state.project.manifest.members)
        board.tell(state.run.id)

    def _publish(self) -> None:
        """Puts the present phase's tasks on the board, unless they stand there."""
        state, attempt = self.state, self.state.attempt
        key = (attempt.round, attempt.number, attempt.phase, state.asked) if attempt else (None,)
        if key != state.published:
            self._tools.board.set_tasks(state.run.id, tasks.tasks(state))
            state.published = key


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
