"""A run to decide about, with what a test cares for changed."""

from dataclasses import replace
from typing import Any

from koinon.domain.run import Kind, Phase, RunState
from koinon.scheduler.view import AttemptView, RoundView, RunView, SiteView

NAMES = ("lille", "lyon", "nantes", "nice")
NOW = 1_000.0
LATER = 2_000.0


def sites(names: tuple[str, ...] = NAMES, away: str = "", refused: str = "") -> tuple[SiteView, ...]:
    return tuple(SiteView(name, granted=name != refused, live=name != away) for name in names)


def run(**changes: Any) -> RunView:
    """Running, initialised, between rounds, everybody there."""
    view = RunView(
        project="heart",
        state=RunState.RUNNING,
        sites=sites(),
        rounds=2,
        trained=0,
        initialised=True,
        next_number=1,
        rounds_left=100,
        voids=0,
        min_sites=3,
        min_others=2,
        train_seconds=600,
        phase_seconds=60,
        gather_until=NOW + 20,
        give_up=NOW + 900,
    )
    return replace(view, **changes)


def attempt(phase: Phase, answered: tuple[str, ...] = (), **changes: Any) -> AttemptView:
    """Of all four sites, before its deadline."""
    fixed = phase not in (Phase.INIT, Phase.KEYS)
    view = AttemptView(
        number=1,
        phase=phase,
        deadline=LATER,
        expected=frozenset(NAMES),
        n=4 if fixed else 0,
        roster=4 if fixed else 0,
        answered=frozenset(answered),
    )
    return replace(view, **changes)


def within(current: AttemptView, kind: Kind = Kind.TRAIN, *, released: bool = False, **changes: Any) -> RunView:
    """A run whose open round has this attempt."""
    first = frozenset(NAMES) if current.n else frozenset()
    return run(round=RoundView(1, kind, first, released, current), next_number=2, **changes)
