"""What sites are asked for in the present phase, and the waiting list that people see of it."""

from collections.abc import Callable, Mapping
from typing import Any

from koinon.domain.manifest import CONTROLLED
from koinon.domain.run import Kind, Phase, RunState
from koinon.domain.wire import SiteStatus, Task
from koinon.scheduler.progress import Progress
from koinon.scheduler.view import RunView

_PHASES = {
    Phase.INIT: "builds the first weights",
    Phase.KEYS: "trains",
    Phase.SHARES: "sends its shares",
    Phase.MASKED: "uploads its masked update",
    Phase.SURVIVORS: "signs the survivors",
    Phase.UNMASK: "releases its shares",
}


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


def waiting(
    progress: Progress,
    look: Callable[[], RunView],
    statuses: Mapping[str, SiteStatus | None],
    seen: Mapping[str, float],
) -> list[dict[str, Any]]:
    """For whom the run waits: `for`, `since`, `until`, `why`, `todo`; times in seconds since 1970."""
    if progress.over:
        return []
    result: list[dict[str, Any]] = []
    if progress.failure is not None:
        failure = progress.failure
        todo = "Nothing is lost: the step is tried again by itself. The hub's operator sees more at /readyz."
        result.append(_wait("hub", failure.since, failure.until, failure.text, todo))
    if progress.stale:  # the store is away, or was a moment ago: nothing else is known for sure
        return result
    view = look()
    if progress.attempt is None or progress.attempt.phase is Phase.FAILED:
        return result + _gathering(progress, view, seen)
    attempt = progress.attempt
    since = attempt.phases.get(attempt.phase, 0.0)
    for site in sorted(progress.awaited):
        status = statuses.get(site)
        why = "scores the final model" if _scores(progress) else _PHASES[attempt.phase]
        if site == progress.asked:
            why = "sends the agreed first weights"
        doing = f" (it says: {status.doing})" if status and status.doing != "idle" else ""
        if site not in view.live:
            why, doing = "is not connected", ""
        todo = f"At the deadline the round goes on without {site} if enough are left. koinon site show {site}"
        result.append(_wait(site, since, attempt.deadline, why + doing, todo))
    return result


def _scores(progress: Progress) -> bool:
    attempt = progress.attempt
    return attempt is not None and attempt.phase is Phase.KEYS and attempt.opening.kind is Kind.EVALUATE


def _gathering(progress: Progress, view: RunView, seen: Mapping[str, float]) -> list[dict[str, Any]]:
    """Between rounds: members without a grant, and members that are not connected."""
    until = view.gather_until if len(view.live) >= view.crowd else view.give_up
    began = progress.run.created if progress.run.state is RunState.QUEUED else progress.idle_since
    result = []
    for site in view.sites:
        if not site.granted:
            row = progress.grants.get(site.name)
            why = "has not granted the project"
            if row is not None and row.grant is not None:
                why = "has revoked its grant" if row.revoked else "granted, but not for now"
            result.append(_wait(site.name, began, until, why, f"At the hospital: koinon grant {view.project}"))
        elif not site.live:
            since = seen.get(site.name) or began
            result.append(_wait(site.name, since, until, "is not connected", f"At the hospital: koinon site serve; "
                                f"koinon site show {site.name}"))  # fmt: skip
    return result


def _wait(whom: str, since: float, until: float, why: str, todo: str) -> dict[str, Any]:
    return {"for": whom, "since": since, "until": until, "why": why, "todo": todo}
