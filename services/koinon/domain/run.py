"""A run: a choice of parameters within a manifest, and the states it and its rounds go through."""

import itertools
from enum import StrEnum
from typing import TypeVar

from koinon.domain.errors import Conflict


class RunState(StrEnum):
    QUEUED = "queued"  # waits for grants or sites
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """What a round is for. Round 0 is `init`, the last one `evaluate`, all others `train`."""

    INIT = "init"
    TRAIN = "train"
    EVALUATE = "evaluate"


class RoundState(StrEnum):
    OPEN = "open"
    COMMITTED = "committed"
    VOID = "void"  # shares were released but too few to open: the model stays, a new number starts
    FAILED = "failed"


class Phase(StrEnum):
    """Where an attempt stands. The keys message says that local training is done (PROTECTION.md, Order)."""

    INIT = "init"
    KEYS = "keys"
    SHARES = "shares"
    MASKED = "masked"
    SURVIVORS = "survivors"
    UNMASK = "unmask"
    DONE = "done"
    FAILED = "failed"


_RUN = {
    RunState.QUEUED: {RunState.RUNNING, RunState.CANCELLED, RunState.FAILED},
    RunState.RUNNING: {RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED},
}
_ROUND = {RoundState.OPEN: {RoundState.COMMITTED, RoundState.VOID, RoundState.FAILED}}
_ORDER = [Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASK, Phase.DONE]
_PHASE = {phase: {following, Phase.FAILED} for phase, following in itertools.pairwise(_ORDER)} | {
    Phase.INIT: {Phase.DONE, Phase.FAILED}
}
_NEXT: dict[StrEnum, set[StrEnum]] = {**_RUN, **_ROUND, **_PHASE}  # type: ignore[dict-item]


S = TypeVar("S", bound=StrEnum)


def move(current: S, following: S) -> S:
    """`following` if the machine allows it. Raises Conflict otherwise."""
    if following not in _NEXT.get(current, set()):
        raise Conflict(f"It is {current} and cannot become {following}.")
    return following


def is_final(state: RunState) -> bool:
    return state not in _RUN
