"""What the hub takes once, and what it does not take."""

from typing import Any

import pytest

from koinon.domain.errors import Conflict, Refused, Untrusted
from koinon.protection import hub as hubs
from tests.protocol import federation
from tests.protocol.federation import NOW, Member
from tests.protocol.play import WORDS, Play


def test_the_hub_counts_a_repeat_once_and_refuses_a_second_version() -> None:
    play = Play().release()
    play.hub.add_vote(play.hub.votes()[0])
    play.hub.add_release(play.releases["s00"])
    assert len(play.hub.votes()) == 4
    other = (
        play.releases["s00"].model_copy(update={"seeds": play.releases["s01"].seeds}).signed(play.league["s00"].signer)
    )
    with pytest.raises(Conflict, match="already sent something else"):
        play.hub.add_release(other)
    masked, _ = play.uploads["s00"]
    with pytest.raises(Conflict):
        play.hub.add_masked(masked.model_copy(update={"root": "00" * 32}).signed(play.league["s00"].signer))


def test_the_hub_refuses_what_is_late_foreign_or_forged() -> None:
    play = Play().share()
    play.hub.sharers()
    stranger = Member("s09", WORDS, 4)
    late = stranger.join(play.opening.model_copy(update={"invited": (*play.opening.invited, "s09")}))
    with pytest.raises(Conflict, match="closed"):
        play.hub.add_keys(late, stranger.certificate, NOW)
    with pytest.raises(Untrusted, match="not invited"):
        hubs.HubAttempt(play.opening, play.roots, 1).add_keys(late, stranger.certificate, NOW)
    masked, _ = play.league["s00"].mask(play.hub.inbox("s00"))
    signer = play.league["s00"].signer
    for wrong in (
        masked.model_copy(update={"size": 4}).signed(signer),
        masked.model_copy(update={"sharers": "00" * 32}).signed(signer),
        masked.model_copy(update={"context": "00" * 32}).signed(signer),
        masked.model_copy(update={"site": "s01"}),
        masked.model_copy(update={"site": "s09"}).signed(stranger.signer),
    ):
        with pytest.raises(Untrusted):
            play.hub.add_masked(wrong)


def test_the_hub_refuses_incomplete_shares_and_releases() -> None:
    play = Play()
    shares = play.league["s00"].share(play.hub.roster(), play.roots)
    part = dict(list(shares.sealed.items())[:2])
    with pytest.raises(Untrusted, match="did not share with every site"):
        play.hub.add_shares(shares.model_copy(update={"sealed": part}).signed(play.league["s00"].signer))
    play.release("s03")
    again = Play(league=federation.members(4, WORDS)).vote("s03")
    release = play.releases["s00"]
    changes: list[dict[str, Any]] = [
        {"seeds": {}},
        {"seeds": release.seeds | {"s03": "00" * 33}},
        {"mask_keys": {}},
        {"mask_keys": {"s03": "00"}},
        {"survivors": "00" * 32},
    ]
    for change in changes:
        with pytest.raises(Untrusted):
            again.hub.add_release(release.model_copy(update=change).signed(play.league["s00"].signer))
    assert not again.hub.can_open
    with pytest.raises(Refused, match="it takes 3"):
        again.hub.open_keys()


def test_a_later_attempt_takes_sites_of_the_first_only() -> None:
    play = Play()
    opening = federation.opening(list(play.league.values()), attempt=2)
    hub = hubs.HubAttempt(opening, play.roots, 4 * WORDS, first=("s00", "s01", "s02"))
    with pytest.raises(Conflict, match="first attempt"):
        hub.add_keys(play.league["s03"].join(opening), play.league["s03"].certificate, NOW)
    with pytest.raises(Refused, match="0 sites are left"):
        hub.roster()
    for attempt, first in ((1, ("s00",)), (2, None)):
        with pytest.raises(ValueError, match="first roster"):
            hubs.HubAttempt(opening.model_copy(update={"attempt": attempt}), play.roots, 4, first=first)


def test_a_corrupt_dealer_denies_the_opening_and_changes_nothing() -> None:
    """Three release, one of them a wrong share: there is no fourth to do without it."""
    play = Play().vote("s03")
    for name in play.uploads:
        release = play.league[name].release(play.hub.votes())
        if name == "s01":
            wrong = {"s03": release.seeds["s00"]}
            release = release.model_copy(update={"mask_keys": wrong}).signed(play.league[name].signer)
        play.hub.add_release(release)
    with pytest.raises(Untrusted, match="do not fit"):
        play.hub.open_keys()
