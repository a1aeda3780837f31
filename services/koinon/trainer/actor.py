"""What the driver needs to know of the training actor: no torch, which only the actor's process imports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spec:
    """What a group's actor is for: a package (None: the tabular template), features, and the task's kind.

    `sizes` are the dimensions that the project's manifest names; only they may show in an error.
    """

    package: Path | None
    scratch: Path
    inputs: int
    kind: str
    sizes: frozenset[int]


class Actor:
    """Ray's side of worker.Worker, which says what each method does."""

    def __init__(self, spec: Spec) -> None:
        from koinon.trainer import worker

        self._worker = worker.Worker(spec)

    def call(self, method: str, *arguments: Any) -> dict[str, Any]:
        reply: dict[str, Any] = getattr(self._worker, method)(*arguments)
        return reply
