"""Laws of `decide` over whole runs in which sites answer, fall silent, report trouble, go and come back at random."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.domain.run import Kind, Phase, RunState
from koinon.protection import graph
from koinon.scheduler.decide import (
    Action,
    Advance,
    AskWeights,
    Commit,
    Fail,
    Fold,
    Open,
    Retry,
    Start,
    Void,
    decide,
    wake_at,
)
from koinon.scheduler.view import AttemptView, RoundView, RunView, SiteView, quorum

MAX_STEPS = 5_000
HASH = "ab" * 32


class World:
    """Applies actions as the store would, and checks at each that it may be applied."""

    def __init__(self, chance: random.Random, n: int, reliability: float) -> None:
        self.chance, self.reliability, self.now = chance, reliability, 1_000.0
        names = [f"site{index:03d}" for index in range(n)]
        self.view = RunView(
            project="p", state=RunState.QUEUED, sites=tuple(SiteView(name, True, True) for name in names),
            rounds=chance.randint(1, 3), trained=0, initialised=False, next_number=0, rounds_left=chance.randint(1, 12),
            voids=0, min_sites=3, min_others=2, train_seconds=100, phase_seconds=10, gather_until=1_020.0,
            give_up=1_900.0,
        )  # fmt: skip
        self.opened: list[tuple[int, int]] = []
        self.committed: list[int] = []
        self.done = False

    # -- what the sites do

    def stir(self) -> None:
        """Some of the awaited answer, or report trouble; some sites come and go."""
        chance = self.chance
        sites = tuple(
            replace(
                s,
                live=chance.random() < 0.95 if s.live else chance.random() < 0.3,
                silent_at=self.now + chance.choice([-1.0, 5.0, 1e9]),
            )
            for s in self.view.sites
        )
        self.view = replace(self.view, sites=sites)
        if self.view.round is None:
            return
        attempt = self.view.round.attempt
        answered, spooled, troubles = set(attempt.answered), set(attempt.spooled), dict(attempt.troubles)
        for site in sorted(attempt.awaited):
            lot = chance.random()
            if lot < self.reliability:
                (spooled if attempt.phase is Phase.MASKED else answered).add(site)
            elif lot > 0.985:
                troubles[site] = "trouble"
        votes = dict.fromkeys(answered, HASH) if attempt.phase is Phase.INIT else {}
        new = answered - attempt.answered
        released = self.view.round.released or (attempt.phase is Phase.UNMASK and bool(new))
        attempt = replace(
            attempt, answered=frozenset(answered), spooled=frozenset(spooled), troubles=troubles, votes=votes,
            openable=attempt.phase is Phase.UNMASK and len(answered) >= quorum(attempt.n),
            delivered=bool(attempt.asked) and chance.random() < 0.5,
        )  # fmt: skip
        self.view = replace(self.view, round=replace(self.view.round, released=released, attempt=attempt))

    # -- what the hub does

    def apply(self, action: Action) -> None:
        current = self.view.round
        match action:
            case Start():
                assert self.view.state is RunState.QUEUED
                self.view = replace(self.view, state=RunState.RUNNING)
            case Open():
                assert current is None
                assert action.round == self.view.next_number
                assert (action.round, 1) not in self.opened
                assert len(action.invited) >= 3
                self.opened.append((action.round, 1))
                attempt = AttemptView(1, action.phase, action.deadline, frozenset(action.invited))
                spent = action.kind is not Kind.INIT
                self.view = replace(
                    self.view,
                    round=RoundView(action.round, action.kind, frozenset(), False, attempt),
                    next_number=action.round + 1,
                    rounds_left=self.view.rounds_left - spent,
                )
            case Retry():
                assert current is not None
                assert not current.released, "a round of which a share came in is opened at most once"
                assert action.attempt == current.attempt.number + 1
                assert not current.first or set(action.invited) <= current.first
                assert (action.round, action.attempt) not in self.opened
                self.opened.append((action.round, action.attempt))
                n = len(current.first) or len(action.invited)
                n = 0 if action.phase is Phase.INIT else n
                attempt = AttemptView(action.attempt, action.phase, action.deadline, frozenset(action.invited), n=n)
                self.view = replace(self.view, round=replace(current, attempt=attempt))
            case Advance():
                self._advance(action)
            case Fold():
                assert current is not None
                attempt = current.attempt
                assert set(action.sites) <= attempt.spooled
                attempt = replace(
                    attempt,
                    spooled=attempt.spooled - set(action.sites),
                    answered=attempt.answered | set(action.sites),
                )
                self.view = replace(self.view, round=replace(current, attempt=attempt))
            case AskWeights():
                assert current is not None
                assert current.attempt.votes[action.site] == action.sha256
                attempt = replace(current.attempt, asked=action.site, asked_until=action.until)
                self.view = replace(self.view, round=replace(current, attempt=attempt))
            case Commit():
                self._commit(action)
            case Void():
                assert current is not None
                assert current.released
                self._close(voids=self.view.voids + 1)
            case Fail():
                assert action.reason
                self.done = True

    def _advance(self, action: Advance) -> None:
        current = self.view.round
        assert current is not None
        attempt = current.attempt
        assert action.source is attempt.phase
        assert set(action.sites) == attempt.answered
        assert not attempt.spooled, "every verified upload is in the sum before the survivors are shown"
        assert len(action.sites) >= quorum(attempt.n or len(action.sites))
        if action.source is not Phase.SURVIVORS:
            assert len(action.sites) >= 3
        first, n = current.first, attempt.n or len(action.sites)
        roster, expected = attempt.roster, frozenset(action.sites)
        if action.source is Phase.KEYS:
            first, roster = first or expected, len(expected)
            assert expected <= (first if attempt.n == 0 or current.first else expected)
        elif action.source in (Phase.MASKED, Phase.SURVIVORS):
            expected = attempt.expected  # all sharers may vote and release
        if action.source in (Phase.SHARES, Phase.MASKED):
            k = graph.degree(n, graph.collusion(n))
            assert graph.stays_connected(roster, k, graph.collusion(n), roster - len(action.sites))
        following = AttemptView(attempt.number, action.target, action.deadline, expected, n=n, roster=roster)
        self.view = replace(self.view, round=replace(current, first=first, attempt=following))

    def _commit(self, action: Commit) -> None:
        current = self.view.round
        assert current is not None
        assert current.attempt.openable or current.attempt.delivered
        assert action.round not in self.committed
        self.committed.append(action.round)
        trained = self.view.trained + (current.kind is Kind.TRAIN)
        self._close(initialised=True, trained=trained, voids=0)
        self.done = current.kind is Kind.EVALUATE

    def _close(self, **changes: object) -> None:
        self.view = replace(self.view, round=None, give_up=self.now + 600, **changes)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.sampled_from([3, 4, 5, 10, 60]), reliability=st.floats(0.0, 0.97))
def test_every_run_ends_and_no_round_is_opened_twice(seed: int, n: int, reliability: float) -> None:
    chance = random.Random(seed)
    world = World(chance, n, reliability)
    for _ in range(MAX_STEPS):
        actions = decide(world.view, world.now)
        assert actions == decide(world.view, world.now)
        for action in actions:
            world.apply(action)
        if world.done:
            break
        if not actions:
            until = wake_at(world.view, world.now)
            assert until > world.now, "a wait has an end"
            if chance.random() < 0.9:
                world.stir()
            else:
                world.now = until
    assert world.done, "every run ends"
    assert len(set(world.opened)) == len(world.opened)
    assert world.opened == sorted(world.opened)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 12))
def test_reliable_sites_train_every_round_at_once(seed: int, n: int) -> None:
    world = World(random.Random(seed), n, 1.0)
    world.view = replace(world.view, rounds_left=100)
    calm = world.view.sites
    while not world.done:
        actions = decide(world.view, world.now)
        for action in actions:
            assert not isinstance(action, Retry | Void | Fail), action
            world.apply(action)
        if not actions:
            world.stir()
            world.view = replace(world.view, sites=calm)
    assert world.committed == list(range(world.view.rounds + 2))
