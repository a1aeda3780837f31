"""The actors of one project, kept over the rounds; when one dies, new ones repeat the round.

`max_restarts` stays 0: Ray's own restart would keep a half-dead group alive and hide what happened. The
first failed reference wins, the group is killed and rebuilt where Ray still has nodes, and the round starts
again from the model that was sent. Since a round is a function of what was sent, its bytes come out the same.
"""

import threading
from typing import Any

import ray
from ray import exceptions

from koinon.trainer import crew
from koinon.trainer.actor import LOST, Spec
from koinon.trainer.errors import TrainerError

ATTEMPTS = 2


class Group:
    """Calls into the actors, one at a time."""

    def __init__(self, spec: Spec) -> None:
        self._own_code = spec.package is not None
        self._crew = crew.Crew(spec)
        self._lock = threading.Lock()
        self._run: str | None = None

    def start(self) -> None:
        """Builds the actors, warm, and imports the package. Raises TrainerError of the package."""
        with self._lock:
            self._attempts("ping", (), crew.START_SECONDS)

    def call(self, run: str, method: str, *arguments: Any, seconds: float) -> Any:
        """What rank 0 answers to `method`; all ranks work on a fit. `seconds` is for each attempt.

        Raises TrainerError: an actor's own, timeout, worker_died, out_of_memory.
        """
        with self._lock:
            self._fresh_for(run)
            return self._attempts(method, arguments, seconds)

    def close(self) -> None:
        with self._lock:
            self._crew.kill()

    def _fresh_for(self, run: str) -> None:
        """Research code may keep state in its module: another run gets other processes."""
        if self._own_code and self._run not in (None, run):
            self._crew.kill()
        self._run = run

    def _attempts(self, method: str, arguments: tuple[Any, ...], seconds: float) -> Any:
        """Each worker may go once in a round; beyond that, it is the round that kills them."""
        attempt, most, cause = 0, 1, ""
        while attempt < ATTEMPTS + most - 1:
            attempt += 1
            actors: list[Any] = []
            try:
                actors = self._crew.assemble()
                most = max(most, len(actors))
                return _ask(actors if method == "fit" else actors[:1], method, arguments, seconds)
            except exceptions.GetTimeoutError:
                self._crew.kill()
                raise TrainerError("timeout", f"{method} had {seconds:.0f} s") from None
            except exceptions.OutOfMemoryError as error:
                self._crew.kill()
                raise TrainerError("out_of_memory", str(error)) from None
            except exceptions.RayError as error:
                cause = str(error)
                self._crew.kill()
            except TrainerError as trouble:
                # The other ranks wait for the one that is in trouble, and would for ever.
                if len(actors) != 1:
                    self._crew.kill()
                if trouble.code != LOST:
                    raise
                cause = trouble.text
        raise TrainerError("worker_died", cause)


def _ask(actors: list[Any], method: str, arguments: tuple[Any, ...], seconds: float) -> Any:
    if len(actors) > 1:  # into the store once, for all
        arguments = tuple(a if isinstance(a, ray.ObjectRef) else ray.put(a) for a in arguments)
    return crew.gather([actor.call.remote(method, *arguments) for actor in actors], seconds)[0]
