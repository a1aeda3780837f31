"""From what is known of a run to what `decide` sees of it."""

from collections.abc import Callable
from dataclasses import dataclass

from koinon.domain.run import Phase
from koinon.scheduler.progress import Progress
from koinon.scheduler.view import AttemptView, RoundView, RunView, SiteView


@dataclass(frozen=True)
class Pace:
    """Seconds: how long a start or a round waits for sites that are not connected, how long ago a connected site may
    have polled, and how long a run may stay in the queue."""

    gather: float = 20.0
    live: float = 75.0
    queue: float = 7 * 86_400.0


def view(progress: Progress, now: float, pace: Pace, booted: float, last_seen: Callable[[str], float]) -> RunView:
    """A snapshot. `booted` is when this hub started: sites need a moment to find it again."""
    manifest, run = progress.project.manifest, progress.run
    sites = tuple(
        SiteView(
            name=member.site,
            granted=(row := progress.grants.get(member.site)) is not None and row.in_force(now),
            ended=row is not None and row.ended(now),
            live=now - (seen := last_seen(member.site)) < pace.live,
            silent_at=max(seen, booted) + pace.live,
        )
        for member in manifest.members
    )
    queued = run.started is None
    patience = pace.queue if queued else max(manifest.deadlines.train, 600.0)
    return RunView(
        project=manifest.name,
        state=run.state,
        sites=sites,
        rounds=int(run.parameters["rounds"]),
        trained=max(run.version, 0),
        initialised=run.version >= 0,
        next_number=progress.next_number,
        rounds_left=manifest.limits.rounds - progress.project.rounds,
        voids=progress.voids,
        min_sites=manifest.protection.min_sites,
        min_others=manifest.protection.min_others,
        train_seconds=manifest.deadlines.train,
        phase_seconds=manifest.deadlines.phase,
        gather_until=max(booted, run.created) + pace.gather,
        give_up=max(booted, progress.idle_since) + patience,
        round=_round(progress),
    )


def _round(progress: Progress) -> RoundView | None:
    round, attempt = progress.round, progress.attempt
    if round is None or attempt is None:
        return None
    first = progress.first() if attempt.phase is not Phase.INIT else None
    roster = attempt.roster
    return RoundView(
        number=round.number,
        kind=round.kind,
        first=frozenset(round.first or ()),
        released=round.released,
        attempt=AttemptView(
            number=attempt.number,
            phase=attempt.phase,
            deadline=attempt.deadline,
            expected=progress.expected if attempt.phase is not Phase.FAILED else frozenset(),
            n=roster.n if roster else len(first or ()),
            roster=len(roster.participants) if roster else 0,
            answered=frozenset(progress.answered),
            spooled=frozenset(progress.spooled),
            troubles=progress.silent,
            votes=dict(progress.votes),
            asked=progress.asked,
            asked_until=progress.asked_until,
            delivered=progress.weights is not None,
            openable=progress.masks is not None,
        ),
    )
