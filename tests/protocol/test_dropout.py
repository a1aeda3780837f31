"""Ten sites, three vanish: the opened sum is the plain sum of the survivors; below the minimum nothing opens."""

from collections.abc import Callable

import numpy as np
import pytest

from koinon.domain import wire
from koinon.domain.errors import KoinonError, Refused
from koinon.protection import hub as hubs
from koinon.protection import masking
from koinon.protection import roster as rosters
from tests.protocol import federation
from tests.protocol.federation import NOW, Member

WORDS = masking.BLOCK + 1_000  # more than one block of the keystream
GONE = ("s01", "s04", "s09")
League = dict[str, Member]


@pytest.fixture
def league() -> League:
    return federation.members(10, WORDS)


class Round:
    """An honest hub over `league`; `absent(phase)` are the sites that are away from then on."""

    def __init__(self, league: League, absent: Callable[[str], tuple[str, ...]]) -> None:
        self.league, self.absent = league, absent
        self.words = next(iter(league.values())).plain.size
        self.opening = federation.opening(list(league.values()))
        self.hub = hubs.HubAttempt(self.opening, federation.roots(league), 4 * self.words)
        self.total = np.zeros(self.words, np.uint32)

    def here(self, phase: str) -> list[Member]:
        return [member for name, member in self.league.items() if name not in self.absent(phase)]

    def upload(self) -> None:
        for member in self.here("keys"):
            self.hub.add_keys(member.join(self.opening), member.certificate, NOW)
        roster = self.hub.roster()
        for member in self.here("shares"):
            self.hub.add_shares(member.share(roster, federation.roots(self.league)))
        for member in self.here("masked"):
            if member.name in self.hub.sharers():
                message, words = member.mask(self.hub.inbox(member.name))
                self.hub.add_masked(message)
                self.total += words

    def vote(self, min_sites: int = 3) -> None:
        for member in self.here("survivors"):
            self.hub.add_vote(member.vote(self.hub.survivors(), self.league, min_sites))

    def open(self) -> masking.Words:
        for member in self.here("unmask"):
            self.hub.add_release(member.release(self.hub.votes()))
        masking.remove(self.total, self.hub.open_keys())
        return self.total


@pytest.mark.parametrize("phase", ["shares", "masked", "survivors", "unmask"])
def test_three_of_ten_vanish(league: League, phase: str) -> None:
    order = ["keys", "shares", "masked", "survivors", "unmask"]
    round = Round(league, lambda now: GONE if order.index(now) >= order.index(phase) else ())
    round.upload()
    round.vote()
    opened = round.open()
    survivors = round.hub.survivors().roots
    assert len(survivors) == (7 if phase in ("shares", "masked") else 10)
    np.testing.assert_array_equal(opened, federation.plain_sum(league[name] for name in survivors))


def test_one_vanishes_in_every_phase(league: League) -> None:
    gone = {"keys": 0, "shares": 1, "masked": 2, "survivors": 3, "unmask": 3}
    round = Round(league, lambda now: GONE[: gone[now]])
    round.upload()
    round.vote()
    opened = round.open()
    assert len(round.hub.survivors().roots) == 8
    np.testing.assert_array_equal(opened, federation.plain_sum(league[name] for name in round.hub.survivors().roots))


def test_above_fifty_sites_each_masks_with_some_only() -> None:
    """52 sites, 28 neighbours each: 17 may be missing, one more is refused by hub and sites alike."""
    league = federation.members(52, 64)
    gone = tuple(sorted(league))[10:28]
    round = Round(league, lambda phase: gone[:17] if phase != "keys" else ())
    round.upload()
    assert round.hub.roster().k == 28
    assert len(league["s00"].state.masks()) == 1 + 28 - len(
        set(gone[:17]) & set(list(league)[-14:] + list(league)[:15])
    )
    uploads = {member.name: member.state.masked_message(member.signer) for member in round.here("masked")}
    fewer = _survivors(round, {name: masked for name, masked in uploads.items() if name != gone[17]})
    with pytest.raises(Refused, match="18 sites are missing"):
        league["s00"].vote(fewer, league)
    round.vote()
    opened = round.open()
    survivors = round.hub.survivors().roots
    assert len(survivors) == 35
    np.testing.assert_array_equal(opened, federation.plain_sum(league[name] for name in survivors))


def _survivors(round: Round, uploads: dict[str, wire.Masked]) -> wire.Survivors:
    """What a hub that does not keep to the thresholds would show."""
    return wire.Survivors(
        context=wire.context(round.opening, round.hub.roster()),
        sharers=round.hub.sharers(),
        size=4 * round.words,
        roots={name: masked.root for name, masked in uploads.items()},
        signatures={name: masked.signature for name, masked in uploads.items()},
    )


def test_below_the_threshold_nothing_opens_whatever_the_hub_says(league: League) -> None:
    round = Round(league, lambda phase: ("s00", "s01", "s02", "s03") if phase == "masked" else ())
    round.upload()
    with pytest.raises(Refused):
        round.hub.survivors()
    uploads = {member.name: member.state.masked_message(member.signer) for member in round.here("masked")}
    forged = _survivors(round, uploads)
    votes = [
        wire.Vote(context=forged.context, site=member.name, survivors=forged.digest()).signed(member.signer)
        for member in league.values()
    ]
    for member in round.here("masked"):
        with pytest.raises(Refused, match="it takes 7"):
            member.vote(forged, league)
        with pytest.raises(KoinonError):
            member.release(votes)
        assert not member.state.released


def test_a_site_refuses_fewer_survivors_than_its_own_minimum(league: League) -> None:
    round = Round(league, lambda phase: GONE if phase != "keys" else ())
    round.upload()
    with pytest.raises(Refused, match="7 survivors"):
        round.vote(min_sites=8)
    with pytest.raises(Refused, match="1 others of them vouched for"):
        league["s00"].vote(round.hub.survivors(), ("s00", "s02", "s01"))


def test_too_few_votes_release_nothing(league: League) -> None:
    round = Round(league, lambda _: ())
    round.upload()
    round.vote()
    votes = round.hub.votes()
    for member in league.values():
        with pytest.raises(Refused, match="6 sites voted"):
            member.release([*votes[:6], votes[0]])
        assert member.state.release is None


def test_a_hub_cannot_show_one_site_a_smaller_inbox_and_single_it_out(league: League) -> None:
    """The victim masks with six peers; the hub then claims ten sharers, so that the victim's mask is a star of six."""
    round = Round(league, lambda phase: ("s00",) if phase == "masked" else ())
    round.upload()
    inbox = round.hub.inbox("s00")
    victim, _ = league["s00"].mask({name: inbox[name] for name in list(inbox)[:6]})
    with pytest.raises(KoinonError, match="not masked with the sites that shared"):
        round.hub.add_masked(victim)
    uploads = {member.name: member.state.masked_message(member.signer) for member in league.values()}
    forged = _survivors(round, uploads)
    for member in round.here("masked"):
        with pytest.raises(KoinonError, match="signature of this masked"):
            member.vote(forged, league)
    assert rosters.sharers_hash(round.hub.sharers()) != victim.sharers


def test_a_corrupt_release_does_not_change_what_is_opened(league: League) -> None:
    round = Round(league, lambda _: ())
    round.upload()
    round.vote()
    honest = league["s00"].release(round.hub.votes())
    wrong = honest.model_copy(update={"seeds": dict.fromkeys(honest.seeds, "00" * 33)})
    round.hub.add_release(wrong.signed(league["s00"].signer))
    round.league = {name: member for name, member in league.items() if name != "s00"}
    np.testing.assert_array_equal(round.open(), federation.plain_sum(league.values()))
