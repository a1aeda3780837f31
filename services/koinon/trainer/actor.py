"""What the driver needs to know of the training actor: no torch, which only the actor's process imports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOST = "peer_lost"
"""The code of a TrainerError that stays among driver and ranks: another rank is gone, or does not answer."""


@dataclass(frozen=True)
class Spec:
    """What a group's actors are for: a package (None: the tabular template), features, and the task's kind.

    A package is a zip's bytes. `scratch` is a folder for its files on each actor's machine, made if need be.
    `sizes` are the dimensions that the project's manifest names; only they may show in an error. `parts` is how
    many ranks may share a batch: see parts.py.
    """

    package: bytes | None
    scratch: Path
    inputs: int
    kind: str
    sizes: frozenset[int]
    parts: int = 1
    gpu: bool = False


class Actor:
    """Ray's side of worker.Worker, which says what each method does."""

    def __init__(self, spec: Spec) -> None:
        from koinon.trainer import worker

        self._worker = worker.Worker(spec)

    def call(self, method: str, *arguments: Any) -> dict[str, Any]:
        reply: dict[str, Any] = getattr(self._worker, method)(*arguments)
        return reply
