"""Which Grant of a project counts now, and what is true of each of them. Pure: documents and the clock go in.

A project may have several Grants, such as a renewal beside the one that runs out. One governs, the newest that is
valid; a revocation ends all that started before it, also those that are applied again later.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from koinon.domain.grant import Revocation
from koinon_operator.documents import Consent
from koinon_operator.verify import Problem, Verdict


class State(Enum):
    VALID = "valid"
    INVALID = "invalid"
    SUPERSEDED = "superseded"
    EARLY = "early"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Judged:
    """A Grant and what is true of it now."""

    consent: Consent
    state: State
    problem: Problem | None = None
    project: str = ""
    next_change: float | None = None
    """When time alone will change its state; seconds since 1970."""


@dataclass(frozen=True)
class Plan:
    grants: tuple[Judged, ...]
    governing: Judged | None

    @property
    def next_change(self) -> float | None:
        return min((found.next_change for found in self.grants if found.next_change is not None), default=None)


def make(
    consents: Sequence[Consent], verdicts: Mapping[str, Verdict], revocations: Iterable[Revocation], now: float
) -> Plan:
    """The plan of one project. `verdicts` by uid; `revocations` are trusted and may be of any project."""
    ended: dict[str, int] = {}
    for revocation in revocations:
        ended[revocation.manifest] = max(revocation.time, ended.get(revocation.manifest, 0))
    judged = [_judge(consent, verdicts[consent.uid], ended, now) for consent in consents]
    valid = [found for found in judged if found.state is State.VALID]
    if not valid:
        return Plan(tuple(judged), None)
    # Of two manifests whose hashes begin alike the one that was here first keeps the name.
    first = min(valid, key=lambda found: (found.consent.grant.not_before, found.consent.manifest))
    same = [found for found in valid if found.consent.manifest == first.consent.manifest]
    governing = max(same, key=_rank)
    return Plan(tuple(_others(found, governing) for found in judged), governing)


def _rank(found: Judged) -> tuple[int, int, str]:
    return found.consent.grant.not_before, found.consent.grant.expires, found.consent.name


def _judge(consent: Consent, verdict: Verdict, ended: Mapping[str, int], now: float) -> Judged:
    grant = consent.grant
    if verdict.forged:
        return Judged(consent, State.INVALID, verdict.problem)
    if grant.not_before <= ended.get(grant.manifest, -1):
        return Judged(consent, State.REVOKED, project=verdict.project)
    if now >= grant.expires:
        return Judged(consent, State.EXPIRED, project=verdict.project)
    if verdict.problem is not None:
        return Judged(consent, State.INVALID, verdict.problem, verdict.project, grant.expires)
    if now < grant.not_before:
        early = Problem("NotYetValid", "The grant is not valid yet. If it should be, check the clocks.")
        return Judged(consent, State.EARLY, early, verdict.project, grant.not_before)
    return Judged(consent, State.VALID, None, verdict.project, grant.expires)


def _others(found: Judged, governing: Judged) -> Judged:
    if found.state is not State.VALID or found is governing:
        return found
    if found.consent.manifest == governing.consent.manifest:
        problem = Problem("Superseded", f"The Grant {governing.consent.name} of the same project is newer and counts.")
        return Judged(found.consent, State.SUPERSEDED, problem, found.project, found.next_change)
    problem = Problem("NameCollision", "Another project here has a hash that begins alike. Its author must change it.")
    return Judged(found.consent, State.INVALID, problem, found.project, found.next_change)
