"""The actor of one project, kept over the rounds; when it dies, another repeats the round.

`max_restarts` stays 0: Ray's own restart would keep a half-dead group alive and hide what happened. The
first failed reference wins, the group is killed and rebuilt, and the round starts again from the model
that was sent. Since a round is a function of what was sent, its bytes come out the same.
"""

import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import exceptions

from koinon.trainer import errors
from koinon.trainer.actor import Actor, Spec
from koinon.trainer.errors import TrainerError

ATTEMPTS = 2
START_SECONDS = 120.0  # a fresh worker on a busy machine imports torch for half a minute


class Group:
    """Calls into the actor, one at a time. `spec.scratch` is the folder for the actor's own files."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._actor: Any = None
        self._run: str | None = None
        self._folder: Path | None = None

    def start(self) -> None:
        """Builds the actor, warm, and imports the package. Raises TrainerError of the package."""
        with self._lock:
            self._attempts("ping", (), START_SECONDS)

    def call(self, run: str, method: str, *arguments: Any, seconds: float) -> Any:
        """What the actor's `method` answers. Raises TrainerError: the actor's own, timeout, worker_died."""
        with self._lock:
            self._fresh_for(run)
            return self._attempts(method, arguments, seconds)

    def close(self) -> None:
        with self._lock:
            self._kill()

    def _fresh_for(self, run: str) -> None:
        """Research code may keep state in its module: another run gets another process."""
        if self._spec.package is not None and self._run not in (None, run):
            self._kill()
        self._run = run

    def _attempts(self, method: str, arguments: tuple[Any, ...], seconds: float) -> Any:
        cause = ""
        for _ in range(ATTEMPTS):
            try:
                actor = self._built()
                return _answer(ray.get(actor.call.remote(method, *arguments), timeout=seconds))
            except exceptions.GetTimeoutError:
                self._kill()
                raise TrainerError("timeout", f"{method} had {seconds:.0f} s") from None
            except exceptions.OutOfMemoryError as error:
                self._kill()
                raise TrainerError("out_of_memory", str(error)) from None
            except exceptions.RayError as error:
                cause = str(error)
                self._kill()
        raise TrainerError("worker_died", cause)

    def _built(self) -> Any:
        if self._actor is None:
            self._folder = Path(tempfile.mkdtemp(prefix="package-", dir=self._spec.scratch))
            spec = replace(self._spec, scratch=self._folder)
            self._actor = ray.remote(Actor).options(num_cpus=0, max_restarts=0, max_task_retries=0).remote(spec)
            try:
                _answer(ray.get(self._actor.call.remote("load"), timeout=START_SECONDS))
            except TrainerError:
                self._kill()  # an actor without its package must not answer
                raise
        return self._actor

    def _kill(self) -> None:
        actor, self._actor = self._actor, None
        folder, self._folder = self._folder, None
        if actor is not None:
            ray.kill(actor, no_restart=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _answer(reply: Mapping[str, Any]) -> Any:
    if "trouble" in reply:
        raise errors.from_wire(dict(reply["trouble"]))
    return reply["answer"]
