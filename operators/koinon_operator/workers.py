"""How many Ray workers each project gets of what its hospital gives to all. Pure.

First everyone's least, then one worker more at a time for whom has the fewest extra. What runs is never pushed out by
what waits: a project that does not fit waits until another ends, and a smaller one may start meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from koinon.domain.grant import Resources
from koinon_operator.documents import Quota


@dataclass(frozen=True)
class Claim:
    """A project's wish. `since` orders them: the older grant comes first."""

    project: str
    resources: Resources
    since: int
    running: bool


def distribute(quota: Quota, claims: Sequence[Claim]) -> dict[str, int | None]:
    """Workers beside the head by project; None for one that has to wait. The order of `claims` does not matter."""
    left = quota
    given: dict[str, int | None] = {}
    order = sorted(claims, key=lambda claim: (not claim.running, claim.since, claim.project))
    for claim in order:
        least = claim.resources.min_workers
        rest = _minus(left, claim.resources, 1 + least)
        given[claim.project] = None if rest is None else least
        left = left if rest is None else rest
    growing = [claim for claim in order if given[claim.project] is not None]
    while growing:
        claim = min(growing, key=lambda found: _extra(found, given))
        count = given[claim.project] or 0
        rest = _minus(left, claim.resources, 1) if count < claim.resources.max_workers else None
        if rest is None:
            growing.remove(claim)
        else:
            given[claim.project], left = count + 1, rest
    return given


def _extra(claim: Claim, given: dict[str, int | None]) -> int:
    return (given[claim.project] or 0) - claim.resources.min_workers


def _minus(left: Quota, wanted: Resources, pods: int) -> Quota | None:
    """`left` without that many pods, None if they do not fit."""
    rest = Quota(
        left.cpu - pods * wanted.cpus,
        left.memory - pods * wanted.memory,
        left.gpus - pods * wanted.gpus,
        left.pods - pods,
    )
    return None if rest.cpu < 0 or rest.memory < 0 or rest.gpus < 0 or rest.pods < 0 else rest
