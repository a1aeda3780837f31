"""The loop around `decide`: one keeper per active run, woken by messages, grants, sites and deadlines; never by a poll.

A keeper looks, decides and applies in a thread, so that a long commit of one run holds up no other. A step that fails
because something is away (disk, database, object store) is tried again with growing pauses; what a run waits for is
shown meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from koinon.aggregation.commit import Committer, Keys
from koinon.aggregation.spool import Spool, Upload
from koinon.artifacts.stores import ArtifactStore
from koinon.domain.errors import Conflict, Unavailable
from koinon.domain.keys import Certificate
from koinon.domain.run import Phase, RunState, is_final
from koinon.domain.wire import SiteStatus
from koinon.scheduler import waits
from koinon.scheduler.board import Board
from koinon.scheduler.intake import LATE, Intake
from koinon.scheduler.keeper import Keeper, Tools
from koinon.scheduler.look import Pace
from koinon.scheduler.progress import Progress
from koinon.scheduler.steps import Observer, Steps
from koinon.scheduler.waits import Wait
from koinon.store.records import Run
from koinon.store.store import Store

_THREADS = 8
_NOTE_SECONDS = 10.0  # how often what a site says of itself is written down
_log = logging.getLogger(__name__)


class Scheduler:
    """One per hub. `start` and `stop` on the event loop, everything else from any thread."""

    def __init__(
        self,
        store: Store,
        artifacts: ArtifactStore,
        keys: Keys,
        folder: Path,
        board: Board,
        observer: Observer,
        certificate_of: Callable[[str], Certificate],
        *,
        clock: Callable[[], float] = time.time,
        pace: Pace | None = None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`folder` holds spool and sums; `lost` is called once another hub has taken over the database."""
        self._store, self._board, self._clock, self._certificate_of = store, board, clock, certificate_of
        self.spool = Spool(folder / "uploads")
        self._intake = Intake(store, self.spool, folder / "weights", observer.site_troubled)
        committer = Committer(store, artifacts, keys, folder / "sealing")
        steps = Steps(store, self.spool, committer, self._intake, folder / "sums", observer, certificate_of, clock)
        self._tools = Tools(
            store=store,
            spool=self.spool,
            steps=steps,
            board=board,
            observer=observer,
            pool=ThreadPoolExecutor(_THREADS, thread_name_prefix="keeper"),
            stopping=asyncio.Event(),
            clock=clock,
            last_seen=self._seen,
            lost=lost,
            pace=pace or Pace(),
            booted=clock(),
        )
        self._keepers: dict[str, Keeper] = {}
        self._tending: dict[str, asyncio.Task[None]] = {}
        self._projects: dict[str, set[str]] = {}  # site -> hashes of the manifests that name it
        self._statuses: dict[str, SiteStatus | None] = {}
        self._live: set[str] = set()
        self._noted: dict[str, float] = {}
        self._offsets: dict[str, float | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Takes up all active runs where the store says they are. Raises Unavailable."""
        self._loop = asyncio.get_running_loop()
        self._board.bind(self._loop)
        for project in self._store.projects():
            self.project_added(project.hash, [member.site for member in project.manifest.members])
        for row in self._store.sites():
            self._board.saw(row.name, row.last_seen or 0.0)
            self._statuses[row.name] = row.status
            self._offsets[row.name] = row.clock_offset
        for run in self._store.active_runs():
            self._adopt(Progress(run, self._store.project(run.project)))

    async def stop(self) -> None:
        """Lets steps that are under way finish; nothing is lost by stopping, or by being killed, at any moment."""
        self._tools.stopping.set()
        for keeper in self._keepers.values():
            keeper.wake.set()
        await asyncio.gather(*self._tending.values())
        self._tools.pool.shutdown(wait=True)

    def _adopt(self, state: Progress) -> None:
        run = state.run.id
        if run in self._keepers or is_final(state.run.state):
            return
        keeper = self._keepers[run] = Keeper(state, self._tools)
        self._tending[run] = task = asyncio.ensure_future(keeper.tend())
        task.add_done_callback(lambda _: self._release(run))

    def _release(self, run: str) -> None:
        if not self._tools.stopping.is_set():
            self._keepers.pop(run, None)
            self._tending.pop(run, None)

    def check_fence(self) -> None:
        """Is this still the hub of its database? If not, `lost` is called."""
        self._tools.check_fence()

    # -- what the gateway tells ---------------------------------------------------------------------------------

    def wake(self, run: str) -> None:
        keeper = self._keepers.get(run)
        if keeper is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(keeper.wake.set)

    def submitted(self, run: Run) -> None:
        """A run was added to the store."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._adopt, Progress(run, self._store.project(run.project)))

    def cancel(self, run: str, reason: str) -> Run:
        """Raises Conflict if the run is over otherwise, NotFound."""
        row = self._store.set_run_state(run, RunState.CANCELLED, reason)
        self._doubt(run)
        return row

    def grants_changed(self, project: str) -> None:
        for run, keeper in list(self._keepers.items()):
            if keeper.state.run.project == project:
                self._doubt(run)
        self._board.nudge(site for site, hashes in list(self._projects.items()) if project in hashes)

    def project_added(self, project: str, sites: list[str]) -> None:
        for site in sites:
            self._projects.setdefault(site, set()).add(project)
        self._board.nudge(sites)

    def _doubt(self, run: str) -> None:
        keeper = self._keepers.get(run)
        if keeper is not None:
            keeper.doubt()
            self.wake(run)

    def saw_site(self, site: str, status: SiteStatus) -> bool:
        """A site polls. If it was away, the runs that may wait for it look again. True if that should be noted."""
        now = self._clock()
        self._board.saw(site, now)
        self._statuses[site] = status
        if site not in self._live:
            self._live.add(site)
            for run in list(self._keepers):
                self.wake(run)
        due = now - self._noted.get(site, 0.0) >= _NOTE_SECONDS
        if due:
            self._noted[site] = now
        return due

    def note_site(self, site: str, status: SiteStatus, offset: float) -> None:
        """Makes what a site said of itself durable; `offset` is its clock less the hub's, in seconds."""
        self._offsets[site] = offset
        try:
            self._store.touch_site(site, status, offset)
        except Unavailable:
            _log.warning("the status of %s could not be noted: the database is away", site)

    def is_live(self, site: str) -> bool:
        """Did it poll lately?"""
        return self._clock() - self._seen(site) < self._tools.pace.live

    def _seen(self, site: str) -> float:
        """When it polled last; one that is away now wakes its runs when it is back."""
        when = self._board.last_seen(site)
        if self._clock() - when >= self._tools.pace.live:
            self._live.discard(site)
        return when

    def last_seen(self, site: str) -> float | None:
        return self._board.last_seen(site) or None

    def clock_offset(self, site: str) -> float | None:
        """The site's clock less the hub's, in seconds, as noted last."""
        return self._offsets.get(site)

    def standing(self, site: str) -> tuple[list[str], dict[str, dict[str, int]]]:
        """The manifests that name the site, and the newest round and attempt of their runs that are not over."""
        projects = self._projects.get(site, set())
        runs = {}
        for run, keeper in list(self._keepers.items()):
            state = keeper.state
            if state.run.project in projects and not state.over:
                runs[run] = {"round": max(state.place[0], 0), "attempt": max(state.place[1], 0)}
        return sorted(projects), runs

    # -- what sites send ----------------------------------------------------------------------------------------

    def receive(
        self, site: str, run: str, round: int, attempt: int, phase: Phase, body: bytes, took: Mapping[str, float]
    ) -> str:
        """A bundle (see Intake.receive). Raises NotFound for an unknown run."""
        state = self._ready(run)
        if state is None:
            return LATE
        certificate, place = self._certificate_of(site), (round, attempt)
        try:
            result = self._intake.receive(state, certificate, place, phase, body, took, self._clock())
        except Conflict:
            # The store may be a step ahead of memory: the attempt was over when the message came.
            self._doubt(run)
            state = self._ready(run)
            if state is None or state.place != place:
                return LATE
            raise
        self._answered(state, site)
        return result

    def report(self, site: str, run: str, round: int, attempt: int, body: bytes) -> str:
        state = self._ready(run)
        if state is None:
            return LATE
        result = self._intake.report(state, site, (round, attempt), body)
        self._answered(state, site)
        return result

    def upload(self, site: str, run: str, round: int, attempt: int) -> Upload:
        """The upload that a site may make now. Raises NotFound, Conflict if the attempt asks for none of it."""
        state = self._ready(run)
        if state is None:
            raise Conflict(f"Run {run} is over.")
        with state.lock:
            current = state.attempt
            asked = current is not None and (
                current.phase is Phase.MASKED or (current.phase is Phase.INIT and state.asked == site)
            )
            if current is None or state.place != (round, attempt) or not asked or site not in state.expected:
                raise Conflict(f"No upload of {site} is wanted for round {round}, attempt {attempt}.")
            return state.upload(site)

    def part_arrived(self, upload: Upload) -> None:
        state = None if upload.exact else self._ready(upload.run)
        if state is not None and self._intake.part_arrived(state, self._certificate_of(upload.site)):
            self._answered(state, upload.site)

    def _answered(self, state: Progress, site: str) -> None:
        """Takes the site's task off the board, unless the run has gone on and the next one may stand there."""
        with state.lock:
            if not state.stale and site not in state.awaited:
                self._board.drop_task(state.run.id, site)
        self.wake(state.run.id)

    def _ready(self, run: str) -> Progress | None:
        """The run's state, read if it must be; None once it is over. Raises NotFound."""
        keeper = self._keepers.get(run)
        if keeper is None:
            self._store.run(run)
            return None
        keeper.refresh()
        return None if keeper.state.over else keeper.state

    # -- what people ask ----------------------------------------------------------------------------------------

    def waiting(self, run: str) -> list[dict[str, Any]]:
        """For whom the run waits, since when, until when, why, and what one can do."""
        keeper = self._keepers.get(run)
        return [wait.shown() for wait in keeper.waits(self._statuses)] if keeper else []

    def longest_waits(self, most: int) -> list[tuple[Run, str, Wait]]:
        """Of all runs, with the names of their projects; the longest first. Holds up no run."""
        found: list[tuple[Run, str, Wait]] = []
        for keeper in sorted(self._keepers.values(), key=lambda keeper: waits.began(keeper.state)):
            if len(found) >= most:
                break
            name = keeper.state.project.manifest.name
            found += [(keeper.state.run, name, wait) for wait in keeper.latest_waits(self._statuses)]
        return sorted(found, key=lambda each: each[2].since)[:most]

    def troubles(self) -> list[str]:
        """What is being tried again, for /readyz."""
        failing = [(run, keeper.state.failure) for run, keeper in list(self._keepers.items())]
        return [f"run {run}: {failure.text}" for run, failure in failing if failure is not None]

    def active(self) -> dict[str, int]:
        """How many runs are in which state that is not final."""
        states = [keeper.state.run.state.value for keeper in list(self._keepers.values())]
        return {state.value: states.count(state.value) for state in (RunState.QUEUED, RunState.RUNNING)}
