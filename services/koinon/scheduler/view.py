"""What `decide` sees of a run: a snapshot of stored facts, free of I/O."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from koinon.domain.run import Kind, Phase, RunState
from koinon.protection import graph


@dataclass(frozen=True)
class SiteView:
    """A member: may it be asked (its grant is in force), or is that over (revoked, expired), and has it polled lately?

    From `silent_at` on a phase that has enough answers does not wait for it any more, unless it shows up.
    """

    name: str
    granted: bool
    live: bool
    silent_at: float = math.inf
    ended: bool = False


@dataclass(frozen=True)
class AttemptView:
    """An attempt in its present phase. `spooled` are verified uploads that are not in the sum yet.

    `n` are the sites of the round's first attempt, on which the thresholds rest; 0 until that is known.
    `roster` counts the attempt's own sites, 0 until they are fixed.
    """

    number: int
    phase: Phase
    deadline: float
    expected: frozenset[str]
    n: int = 0
    roster: int = 0
    answered: frozenset[str] = frozenset()
    spooled: frozenset[str] = frozenset()
    troubles: Mapping[str, str] = field(default_factory=dict)  # site -> what it reported, in words
    votes: Mapping[str, str] = field(default_factory=dict)  # round 0: site -> hash of its first weights
    asked: str = ""  # round 0: the site that was asked for the agreed first weights,
    asked_until: float = 0.0  # and until when
    delivered: bool = False  # round 0: they arrived
    openable: bool = False  # enough shares are here to open the sum

    @property
    def awaited(self) -> frozenset[str]:
        """Who may still answer."""
        return self.expected - self.answered - self.spooled - set(self.troubles)

    @property
    def possible(self) -> frozenset[str]:
        """Who answered or may still do so."""
        return self.answered | self.spooled | self.awaited


@dataclass(frozen=True)
class RoundView:
    """The open round. `first` are the sites of its first roster, empty until that is fixed; no other may join then."""

    number: int
    kind: Kind
    first: frozenset[str]
    released: bool
    attempt: AttemptView


@dataclass(frozen=True)
class RunView:
    """A run with its open round, if any. Times in seconds since 1970, durations in seconds."""

    project: str
    state: RunState
    sites: tuple[SiteView, ...]
    rounds: int  # training rounds asked for
    trained: int  # training rounds committed
    initialised: bool
    next_number: int
    rounds_left: int  # of the manifest's limit
    voids: int  # void rounds in a row
    min_sites: int
    min_others: int
    train_seconds: float
    phase_seconds: float
    gather_until: float  # until then a round waits for sites that are not connected
    give_up: float  # when a run without enough sites fails
    round: RoundView | None = None

    @property
    def granted(self) -> frozenset[str]:
        return frozenset(site.name for site in self.sites if site.granted)

    @property
    def live(self) -> frozenset[str]:
        return frozenset(site.name for site in self.sites if site.granted and site.live)

    def waits_for(self, attempt: AttemptView, now: float) -> frozenset[str]:
        """Who may still answer and has been heard of lately."""
        silent = {site.name for site in self.sites if site.silent_at <= now}
        return attempt.awaited - silent

    def silence_at(self, attempt: AttemptView, now: float) -> float:
        """When the next of those that `waits_for` names falls silent."""
        waited = self.waits_for(attempt, now)
        return min((site.silent_at for site in self.sites if site.name in waited), default=math.inf)

    @property
    def crowd(self) -> int:
        """The smallest crowd the manifest allows."""
        return max(self.min_sites, self.min_others + 1)

    def needed(self, attempt: AttemptView) -> int:
        """How many sites must answer the present phase of `attempt` for it to go on."""
        n = attempt.n or len(attempt.answered)
        t = quorum(n)
        if attempt.phase in (Phase.SURVIVORS, Phase.UNMASK):
            return t
        c = graph.collusion(n)
        k = graph.degree(n, c)
        # PROTECTION.md, Shares: honest survivors stay connected while c + missing < k.
        connected = attempt.roster - (k - c - 1) if attempt.roster > k + 1 else 0
        return max(self.crowd, t, connected)


def quorum(n: int) -> int:
    """Shares that open a sum of n sites (PROTECTION.md: t = (n + c) // 2 + 1)."""
    return graph.threshold(n, graph.collusion(n))
