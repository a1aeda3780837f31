"""What a site refuses: rosters, inboxes, a second update, a second vote, votes of others."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from koinon.domain import wire
from koinon.domain.errors import Conflict, Refused, Untrusted
from koinon.protection import keying
from koinon.protection import roster as rosters
from tests.protocol.federation import NOW, Member
from tests.protocol.play import WORDS, Play


def _swap(roster: wire.Roster, index: int, **changes: Any) -> wire.Roster:
    """The participant at `index` with other keys, properly signed."""
    participant = roster.participants[index]
    signer = Member(participant.keys.site, WORDS, 4).signer
    keys = participant.keys.model_copy(update=changes).signed(signer)
    entries = list(roster.participants)
    entries[index] = participant.model_copy(update={"keys": keys})
    return roster.model_copy(update={"participants": tuple(entries)})


WRONG_ROSTERS: dict[str, Callable[[wire.Roster], wire.Roster]] = {
    "t": lambda r: r.model_copy(update={"t": r.t - 1}),
    "c": lambda r: r.model_copy(update={"c": 0}),
    "k": lambda r: r.model_copy(update={"k": 1}),
    "first": lambda r: r.model_copy(update={"first": r.first[:-1]}),
    "order": lambda r: r.model_copy(update={"participants": r.participants[::-1]}),
    "twice": lambda r: rosters.build([*r.participants, r.participants[1]], None),
    "without me": lambda r: rosters.build(r.participants[1:], None),
    "too few": lambda r: rosters.build(r.participants[:1], None),
    "my keys": lambda r: _swap(r, 0, mask_key=keying.public_of(b"x" * 32)),
    "low order": lambda r: _swap(r, 1, mask_key="00" * 32),
    "copied key": lambda r: _swap(r, 1, mask_key=r.participants[2].keys.mask_key),
    "other attempt": lambda r: _swap(r, 1, opening="00" * 32),
    "unsigned": lambda r: r.model_copy(
        update={
            "participants": (
                r.participants[0],
                r.participants[1].model_copy(
                    update={"keys": r.participants[1].keys.model_copy(update={"mask_key": keying.public_of(b"h" * 32)})}
                ),
                *r.participants[2:],
            )
        }
    ),
}


@pytest.mark.parametrize("wrong", WRONG_ROSTERS)
def test_a_roster_that_an_honest_hub_would_not_show_is_refused(wrong: str) -> None:
    play = Play()
    roster, before = WRONG_ROSTERS[wrong](play.hub.roster()), play.league["s00"].journal
    with pytest.raises((Untrusted, Refused)):
        play.league["s00"].share(roster, play.roots)
    assert play.league["s00"].journal == before


def test_peers_are_certified_by_the_manifest_s_roots_and_in_time() -> None:
    play = Play()
    state, roster = play.league["s00"].state, play.hub.roster()
    other_root = play.roots | {"s02": play.roots["s01"]}
    no_member = {name: root for name, root in play.roots.items() if name != "s02"}
    for roots, now in ((other_root, NOW), (no_member, NOW), (play.roots, 3_000.0)):
        with pytest.raises(Untrusted):
            state.accept_roster(roster, roots=roots, now=now)


def test_a_second_roster_of_an_attempt_and_another_first_of_a_round_are_refused() -> None:
    play = Play().share()
    smaller = rosters.build(play.hub.roster().participants[:3], None)
    with pytest.raises(Refused, match="another roster"):
        play.league["s00"].share(smaller, play.roots)
    later = Play(attempt=2, league=play.league)
    with pytest.raises(Refused, match="other sites for the round's first attempt"):
        play.league["s00"].share(
            rosters.build(later.hub.roster().participants, ["s00", "s01", "s02", "s03", "s04"]), play.roots
        )


def test_an_attempt_masks_one_update_only() -> None:
    play = Play().mask()
    state = play.league["s00"].state
    with pytest.raises(Conflict, match="another update"):
        state.bind(hashlib.sha256(b"other").hexdigest())
    with pytest.raises(Refused, match="another masked"):
        state.record_upload(4 * WORDS, "00" * 32)


def test_nothing_is_masked_before_the_update_is_fixed() -> None:
    play = Play().share()
    state = play.league["s00"].state.accept_inbox(play.hub.inbox("s00"))
    for early in (
        state.masks,
        lambda: state.record_upload(4, "00" * 32),
        lambda: play.league["s00"].state.bind("00" * 32),
    ):
        with pytest.raises(Conflict):
            early()


def test_the_first_inbox_counts_for_good() -> None:
    play = Play().share()
    inbox = play.hub.inbox("s00")
    state = play.league["s00"].state.accept_inbox(inbox)
    assert state.accept_inbox(dict(list(inbox.items())[:2])) == state
    with pytest.raises(Refused, match="2 sites are left; it takes 3"):
        play.league["s00"].state.accept_inbox({"s01": inbox["s01"]})


def test_a_site_votes_once_and_only_for_what_it_can_check() -> None:
    play = Play().mask("s03")
    survivors, member = play.hub.survivors(), play.league["s00"]
    root = "00" * 32
    for change in (
        {"context": root},
        {"sharers": survivors.sharers[:-1]},
        {"sharers": survivors.sharers[::-1]},
        {"roots": survivors.roots | {"s00": root}},
        {"roots": survivors.roots | {"s01": root}},
        {"roots": survivors.roots | {"s03": root}},
        {"size": 4},
        {"signatures": survivors.signatures | {"s01": survivors.signatures["s02"]}},
    ):
        with pytest.raises(Untrusted):
            member.vote(survivors.model_copy(update=change), play.league)
    play.league["s03"].step(lambda state: state.accept_inbox(play.hub.inbox("s03")))
    forged = survivors.model_copy(
        update={"roots": survivors.roots | {"s03": root}, "signatures": survivors.signatures | {"s03": ""}}
    )
    with pytest.raises(Untrusted, match="not the one it made"):
        play.league["s03"].vote(forged, play.league)
    vote = member.vote(survivors, play.league)
    fewer = survivors.model_copy(update={"roots": {}, "signatures": {}})
    with pytest.raises(Refused, match="another survivors"):
        member.vote(fewer, play.league)
    assert member.vote(survivors, play.league) == vote


def test_votes_count_only_signed_by_the_roster_and_for_the_same_set() -> None:
    play = Play().vote()
    votes, member = play.hub.votes(), play.league["s00"]
    stranger = Member("s09", WORDS, 4)
    for wrong in (
        votes[1].model_copy(update={"survivors": "00" * 32}).signed(play.league["s01"].signer),
        votes[1].model_copy(update={"context": "00" * 32}).signed(play.league["s01"].signer),
        votes[1].model_copy(update={"site": "s02"}),
        votes[1].model_copy(update={"site": "s09"}).signed(stranger.signer),
    ):
        with pytest.raises(Untrusted):
            member.release([votes[0], votes[2], votes[3], wrong])
    assert not member.state.released


def test_another_signing_key_cannot_speak_for_the_attempt() -> None:
    play = Play()
    with pytest.raises(Conflict, match="signing key"):
        play.league["s00"].state.keys_message(play.league["s01"].signer)
