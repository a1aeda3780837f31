"""What sites are asked for in the present phase."""

from typing import Any

from koinon.domain.manifest import CONTROLLED
from koinon.domain.run import Kind, Phase
from koinon.domain.wire import Task
from koinon.scheduler.progress import Progress


def tasks(progress: Progress) -> dict[str, bytes]:
    """The Task of every awaited site, as JSON. Sites of a phase that asks all the same share the bytes."""
    attempt, hub, run = progress.attempt, progress.hub, progress.run
    if attempt is None or not progress.awaited:
        return {}
    common: dict[str, Any] = {"opening": attempt.opening, "phase": attempt.phase, "deadline": attempt.deadline}
    if attempt.phase is Phase.MASKED:
        assert hub is not None
        return {s: encode(Task(**common, inbox=hub.inbox(s))) for s in progress.awaited}
    if attempt.phase is Phase.KEYS:
        common["model"] = run.model
        if run.parameters["strategy"] in CONTROLLED and attempt.opening.kind is Kind.TRAIN:
            return {s: encode(Task(**common, counted=progress.counted.get(s))) for s in progress.awaited}
    elif attempt.phase is Phase.SHARES:
        common["roster"] = attempt.roster
    elif attempt.phase in (Phase.SURVIVORS, Phase.UNMASK):
        common["survivors"] = attempt.survivors
    if attempt.phase is Phase.UNMASK:
        assert hub is not None
        common["votes"] = hub.votes()
    body = encode(Task(**common))
    result = dict.fromkeys(progress.awaited, body)
    if progress.asked in result:
        result[progress.asked] = encode(Task(**common, upload=True, ballots=progress.ballots))
    return result


def encode(task: Task) -> bytes:
    return task.model_dump_json(exclude_defaults=True).encode()
