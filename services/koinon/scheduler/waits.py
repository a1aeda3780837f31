"""The waiting list: for whom each run waits, since when, until when, why, and what one can do about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from koinon.domain.run import Kind, Phase, RunState
from koinon.domain.wire import SiteStatus
from koinon.scheduler.progress import Progress
from koinon.scheduler.view import RunView

HUB = "hub"


class Cause(StrEnum):
    """Why a run waits, as a word for programs."""

    HUB = "hub"  # a step of the hub failed and is tried again
    NOT_GRANTED = "not_granted"
    REVOKED = "revoked"
    NOT_IN_FORCE = "not_in_force"  # granted, but not for now
    NOT_CONNECTED = "not_connected"
    WEIGHTS = "weights"
    TRAIN = "train"
    EVALUATE = "evaluate"
    SHARES = "shares"
    MASKED = "masked"
    SURVIVORS = "survivors"
    UNMASK = "unmask"


_PHASES = {
    Phase.INIT: (Cause.WEIGHTS, "builds the first weights"),
    Phase.KEYS: (Cause.TRAIN, "trains"),
    Phase.SHARES: (Cause.SHARES, "sends its shares"),
    Phase.MASKED: (Cause.MASKED, "uploads its masked update"),
    Phase.SURVIVORS: (Cause.SURVIVORS, "signs the survivors"),
    Phase.UNMASK: (Cause.UNMASK, "releases its shares"),
}


@dataclass(frozen=True)
class Wait:
    """`whom`: a site, or "hub". Times in seconds since 1970."""

    whom: str
    since: float
    until: float
    cause: Cause
    why: str
    todo: str

    def shown(self) -> dict[str, Any]:
        return {"for": self.whom, "since": self.since, "until": self.until, "why": self.why, "todo": self.todo}


def of(
    progress: Progress,
    look: Callable[[], RunView],
    statuses: Mapping[str, SiteStatus | None],
    last_seen: Callable[[str], float],
) -> list[Wait]:
    """For whom the run waits now. The caller holds its lock; `look` is called only if sites matter."""
    if progress.over:
        return []
    result: list[Wait] = []
    if progress.failure is not None:
        failure = progress.failure
        todo = "Nothing is lost: the step is tried again by itself. The hub's operator sees more at /readyz."
        result.append(Wait(HUB, failure.since, failure.until, Cause.HUB, failure.text, todo))
    if progress.stale:  # the store is away, or was a moment ago: nothing else is known for sure
        return result
    if progress.attempt is None or progress.attempt.phase is Phase.FAILED:
        return result + _gathering(progress, look(), last_seen)
    awaited = progress.awaited
    return result + _in_round(progress, awaited, look(), statuses) if awaited else result


def began(progress: Progress) -> float:
    """Since when the run stands where it stands, about: read without its lock, to sort by."""
    attempt = progress.attempt
    if progress.failure is not None:
        return progress.failure.since
    if attempt is not None and attempt.phase is not Phase.FAILED:
        return attempt.phases.get(attempt.phase, progress.idle_since)
    return progress.run.created if progress.run.state is RunState.QUEUED else progress.idle_since


def _in_round(
    progress: Progress, awaited: frozenset[str], view: RunView, statuses: Mapping[str, SiteStatus | None]
) -> list[Wait]:
    attempt = progress.attempt
    assert attempt is not None
    since = attempt.phases.get(attempt.phase, 0.0)
    result = []
    for site in sorted(awaited):
        status = statuses.get(site)
        cause, why = _PHASES[attempt.phase]
        if attempt.phase is Phase.KEYS and attempt.opening.kind is Kind.EVALUATE:
            cause, why = Cause.EVALUATE, "scores the final model"
        if site == progress.asked:
            why = "sends the agreed first weights"
        doing = f" (it says: {status.doing})" if status and status.doing != "idle" else ""
        if site not in view.live:
            cause, why, doing = Cause.NOT_CONNECTED, "is not connected", ""
        todo = f"At the deadline the round goes on without {site} if enough are left. koinon site show {site}"
        result.append(Wait(site, since, attempt.deadline, cause, why + doing, todo))
    return result


def _gathering(progress: Progress, view: RunView, last_seen: Callable[[str], float]) -> list[Wait]:
    """Between rounds: members without a grant, and members that are not connected."""
    until = view.gather_until if len(view.live) >= view.crowd else view.give_up
    begun = progress.run.created if progress.run.state is RunState.QUEUED else progress.idle_since
    result = []
    for site in view.sites:
        if not site.granted:
            row = progress.grants.get(site.name)
            cause, why = Cause.NOT_GRANTED, "has not granted the project"
            if row is not None and row.grant is not None:
                cause, why = Cause.NOT_IN_FORCE, "granted, but not for now"
                if row.revoked:
                    cause, why = Cause.REVOKED, "has revoked its grant"
            result.append(Wait(site.name, begun, until, cause, why, f"At the hospital: koinon grant {view.project}"))
        elif not site.live:
            since = last_seen(site.name) or begun
            todo = f"At the hospital: koinon site serve; koinon site show {site.name}"
            result.append(Wait(site.name, since, until, Cause.NOT_CONNECTED, "is not connected", todo))
    return result
