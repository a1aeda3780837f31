"""Who does which task when: one lane of training a project, a few for the protocol's phases, one task a run at a time.

A phase never waits for another run's training; of a run, a newer task waits for the one at work and takes the place of
older ones that wait. The threads are daemons: a task that hangs cannot keep the agent from ending.
"""

import queue
from collections.abc import Callable
from threading import Lock, Thread

from koinon.domain.run import Phase
from koinon.domain.wire import Task

PHASE_LANES = 4


class Lane:
    """One thread that does one thing after the other."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, work: Callable[[], None]) -> None:
        self._queue.put(work)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def close(self) -> None:
        """Ends the lane after what it is doing."""
        self._queue.put(None)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)


class Lanes:
    """`do` is called with each task, in a lane; it must not raise. Thread-safe."""

    def __init__(self, do: Callable[[Task], None]) -> None:
        self._do = do
        self._lock = Lock()
        self._current: dict[str, Task] = {}
        self._waiting: dict[str, Task] = {}
        self._training: dict[str, Lane] = {}
        self._phases = [Lane(f"phase-{index}") for index in range(PHASE_LANES)]
        self._closed = False

    def offer(self, task: Task) -> None:
        """Does `task` unless it is being done; after the run's present task if there is one."""
        run = task.opening.run
        with self._lock:
            if self._closed or self._current.get(run) == task:
                return
            if run in self._current:
                self._waiting[run] = task
                return
            self._start(task)

    def _start(self, task: Task) -> None:
        run = task.opening.run
        self._current[run] = task
        self._lane(task).put(lambda: self._work(task))

    def _lane(self, task: Task) -> Lane:
        if task.phase not in (Phase.INIT, Phase.KEYS):
            return self._phases[hash(task.opening.run) % PHASE_LANES]
        return self._training_lane(task.opening.manifest)

    def _training_lane(self, project: str) -> Lane:
        if project not in self._training:
            self._training[project] = Lane(f"train-{project[:8]}")
        return self._training[project]

    def aside(self, project: str, work: Callable[[], None]) -> bool:
        """Does `work` in the project's lane of training, unless it is at a task: then False."""
        with self._lock:
            tasks = [*self._current.values(), *self._waiting.values()]
            if self._closed or any(task.opening.manifest == project for task in tasks):
                return False
            self._training_lane(project).put(work)
            return True

    def _work(self, task: Task) -> None:
        run = task.opening.run
        try:
            self._do(task)
        finally:
            with self._lock:
                self._current.pop(run, None)
                following = self._waiting.pop(run, None)
                if following is not None and following != task and not self._closed:
                    self._start(following)

    def busy(self) -> dict[str, Task]:
        """What is being done now, by run."""
        with self._lock:
            return dict(self._current)

    def close(self, seconds: float) -> None:
        """Takes nothing new and waits for what is being done, at most `seconds` a lane."""
        with self._lock:
            self._closed = True
            lanes = [*self._phases, *self._training.values()]
        for lane in lanes:
            lane.close()
        for lane in lanes:
            lane.join(seconds)
