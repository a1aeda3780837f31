"""What the hub together with one corrupt site can never get, in whatever order it shows things to the honest ones.

The rules are the moves of tests/protocol/adversary.py: any opening, roster, inbox and survivor set, to any site,
again and again. The invariants are the laws of PROTECTION.md.
"""

from collections.abc import Collection
from itertools import combinations

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from koinon.protection import keying, masking
from tests.protocol import federation
from tests.protocol.adversary import EVERYBODY, HONEST, VOUCHED, WORDS, Adversary

some_sites = st.one_of(st.just(frozenset(HONEST)), st.frozensets(st.sampled_from(HONEST), min_size=1))
crowds = st.one_of(st.just(frozenset(EVERYBODY)), st.frozensets(st.sampled_from(EVERYBODY), min_size=3))
rounds, attempts, models = st.sampled_from([1, 1, 1, 2]), st.sampled_from([1, 1, 2, 3]), st.sampled_from("aab")


class Game(Adversary):
    @initialize(data=st.data(), sites=some_sites, crowd=crowds)
    def begin(self, data: st.DataObject, sites: frozenset[str], crowd: frozenset[str]) -> None:
        self.drive(data, 1, 1, "a", sites, crowd)

    @rule(data=st.data(), attempt=attempts, sites=some_sites, crowd=crowds)
    def again(self, data: st.DataObject, attempt: int, sites: frozenset[str], crowd: frozenset[str]) -> None:
        self.drive(data, 1, attempt, "a", sites, crowd)

    @rule(data=st.data(), round=rounds, attempt=attempts, model=models, sites=some_sites, crowd=crowds)
    def drive(
        self, data: st.DataObject, round: int, attempt: int, model: str, sites: frozenset[str], crowd: frozenset[str]
    ) -> None:
        """A whole attempt with some sites, left off anywhere; the phases may reach different sites."""
        steps = data.draw(st.sampled_from([5, 5, 5, 4, 3, 2, 1]), "steps")
        sharers = data.draw(st.one_of(st.just(crowd), crowds), "sharers")
        opening = federation.opening(list(self.league.values()), round, attempt, model)
        self.show_opening(opening, sites)
        context = self.compose_roster(opening, crowd, self._first(data, round, attempt))
        if steps > 1:
            self.show_roster(context, sites)
        if steps > 2:
            self.show_inbox(
                context, data.draw(st.one_of(st.just(sharers), crowds), "the first one's inbox"), {min(sites)}
            )
            self.show_inbox(context, sharers, sites)
        digest = self.compose_survivors(context, sharers, data.draw(st.one_of(st.just(crowd), crowds), "survivors"))
        if steps > 3:
            self.show_survivors(digest, sites)
        if steps > 4:
            self.show_votes(digest, data.draw(some_sites, "releasing"))

    @rule(round=rounds, attempt=attempts, model=models, sites=some_sites)
    def open(self, round: int, attempt: int, model: str, sites: frozenset[str]) -> None:
        self.show_opening(federation.opening(list(self.league.values()), round, attempt, model), sites)

    @precondition(lambda self: self.openings)
    @rule(data=st.data(), crowd=crowds, sites=some_sites)
    def roster(self, data: st.DataObject, crowd: frozenset[str], sites: frozenset[str]) -> None:
        opening = self.openings[data.draw(st.sampled_from(sorted(self.openings)))]
        context = self.compose_roster(opening, crowd, self._first(data, opening.round, opening.attempt))
        self.show_roster(context, sites)

    @precondition(lambda self: self.rosters)
    @rule(data=st.data(), sharers=crowds, sites=some_sites)
    def mask(self, data: st.DataObject, sharers: frozenset[str], sites: frozenset[str]) -> None:
        self.show_inbox(data.draw(st.sampled_from(sorted(self.rosters))), sharers, sites)

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), sharers=crowds, crowd=crowds, sites=some_sites)
    def survive(
        self, data: st.DataObject, sharers: frozenset[str], crowd: frozenset[str], sites: frozenset[str]
    ) -> None:
        context = data.draw(st.sampled_from(sorted(self.uploads)))
        self.show_survivors(self.compose_survivors(context, sharers, crowd), sites)

    @precondition(lambda self: self.sets)
    @rule(data=st.data(), sites=some_sites)
    def ask_again(self, data: st.DataObject, sites: frozenset[str]) -> None:
        digest = data.draw(st.sampled_from(sorted(self.sets)))
        self.show_survivors(digest, sites)
        self.show_votes(digest, sites)

    @rule(name=st.sampled_from(HONEST))
    def end(self, name: str) -> None:
        member = self.league[name]
        if member.journal is not None:
            member.step(lambda state: state.end())
            for opening, entropy in self.secrets[name].items():
                for secret in (entropy, *_derived(entropy, opening)):
                    assert secret.hex() not in (member.journal or "")

    def _first(self, data: st.DataObject, round: int, attempt: int) -> Collection[str] | None:
        if attempt == 1:
            return None
        seen = {roster.first for opening, roster in self.rosters.values() if opening.round == round}
        return data.draw(st.one_of(st.sampled_from(sorted(seen)), crowds) if seen else crowds, "first")

    # -- laws ------------------------------------------------------------------------------------------------------

    @invariant()
    def one_survivor_set_of_a_round_opens(self) -> None:
        opened = [digest for digest in self.sets if self._opens(digest)]
        for one, other in combinations(opened, 2):
            (first_opening, first), (second_opening, second) = (
                self.rosters[self.sets[digest].context] for digest in (one, other)
            )
            if first_opening.round == second_opening.round:
                assert first.first != second.first
                assert not set(self.sets[one].roots) & set(self.sets[other].roots) & set(HONEST)

    @invariant()
    def no_peer_gives_both_seed_and_mask_key(self) -> None:
        for context in self.rosters:
            assert not self._known(context, "seeds") & self._known(context, "mask_keys") & set(HONEST)

    @invariant()
    def nobody_is_singled_out(self) -> None:
        """With its seed known, an honest site still hides among two honest ones by masks that stay unknown."""
        for context in self.rosters:
            exposed = self._known(context, "mask_keys")
            for name in (self._known(context, "seeds") & set(HONEST)) - exposed:
                peers = set(HONEST) - exposed - {name}
                held = {peer for peer in peers if {name, peer} & self._masked_with(context, name, peer)}
                assert held or name not in self.uploads[context]

    @invariant()
    def every_accepted_set_is_large_enough(self) -> None:
        for name in HONEST:
            state = self.league[name].state if self.league[name].journal else None
            if state is not None and state.survivors is not None:
                others = set(state.survivors.roots) - {name}
                assert len(others) >= 2
                assert len(others & VOUCHED[name]) >= 2

    @invariant()
    def older_secrets_are_gone(self) -> None:
        for name in HONEST:
            member = self.league[name]
            if member.journal is not None:
                state = member.state
                for opening, entropy in self.secrets[name].items():
                    if opening != state.opening.digest() or state.released:
                        assert entropy.hex() not in member.journal

    @invariant()
    def an_opened_sum_is_the_plain_sum(self) -> None:
        for digest, survivors in self.sets.items():
            if digest not in self.summed and self._opens(digest):
                self.summed.add(digest)
                hypothesis.event("a sum was opened")
                total, hub = np.zeros(WORDS, np.uint32), self._hub(digest)
                for name in survivors.roots:
                    total += self.words[survivors.roots[name]]
                masking.remove(total, hub.open_keys())
                expected = federation.plain_sum(self.league[name] for name in survivors.roots)
                np.testing.assert_array_equal(total, expected)


def _derived(entropy: bytes, opening: str) -> list[bytes]:
    return [keying.derive(entropy, purpose, opening) for purpose in ("mask-key", "share-key", "seed")]


TestAdversary = Game.TestCase
TestAdversary.settings = hypothesis.settings(
    max_examples=120,
    stateful_step_count=15,
    deadline=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate],  # shrinking takes minutes
    suppress_health_check=list(hypothesis.HealthCheck),
)
