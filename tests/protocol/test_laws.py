"""Laws of the protocol that need no adversary to choose: one context, one opening, no secret left."""

from typing import Any

import numpy as np
import pytest

from koinon.domain import wire
from koinon.domain.errors import KoinonError, Refused, Unsupported, Untrusted
from koinon.domain.run import Kind
from koinon.protection import keying, masking, sharing, site
from tests.protocol import federation
from tests.protocol.federation import NOW
from tests.protocol.play import Play

CHANGES: list[dict[str, Any]] = [
    {"round": 2},
    {"attempt": 2},
    {"model": "00" * 32},
    {"audit": "00" * 32},
    {"parameters": {"seed": 43}},
    {"manifest": "00" * 32},
    {"invited": ("s00", "s01", "s02", "s03", "s04")},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_another_opening_gives_another_context_and_is_refused(change: dict[str, Any]) -> None:
    play = Play()
    other = play.opening.model_copy(update=change)
    roster = play.hub.roster()
    assert wire.context(other, roster) != wire.context(play.opening, roster)
    state = site.join(None, other, play.league["s00"].certificate, federation.secret("s00", play.opening.digest()))
    with pytest.raises(KoinonError):
        state.accept_roster(roster, roots=play.roots, now=NOW)


def test_one_site_with_another_context_makes_the_sum_unusable() -> None:
    play = Play().release()
    state, words = play.league["s00"].state, play.league["s00"].plain.copy()
    entropy = federation.secret("s00", play.opening.digest()).hex()
    shifted = "0" if state.context and state.context[0] != "0" else "1"
    wrong = state.model_copy(
        update={
            "entropy": entropy,
            "held": dict.fromkeys(play.league, ("00", "00")),
            "context": shifted + (state.context or "")[1:],
        }
    )
    masking.apply(words, wrong.masks())
    others = [words for name, (_, words) in play.uploads.items() if name != "s00"]
    total = np.stack([words, *others]).sum(axis=0, dtype=np.uint32)
    masking.remove(total, play.hub.open_keys())
    assert np.mean(total == federation.plain_sum(play.league.values())) < 0.1


def test_shares_are_bound_to_context_sender_and_receiver() -> None:
    play = Play().share()
    inbox = play.hub.inbox("s00")
    swapped = inbox | {"s01": inbox["s02"], "s02": inbox["s01"]}
    flipped = inbox | {"s01": ("B" if inbox["s01"][0] == "A" else "A") + inbox["s01"][1:]}
    other = inbox | {"s01": play.hub.inbox("s03")["s01"]}
    for wrong in (swapped, flipped, other, inbox | {"s01": ""}, inbox | {"s01": "A"}):
        with pytest.raises(Untrusted, match="cannot be opened"):
            play.league["s00"].mask(wrong)
    with pytest.raises(Untrusted, match="s09 is not in the roster"):
        play.league["s00"].mask(inbox | {"s09": inbox["s01"]})
    assert play.league["s00"].state.held is None


def test_released_shares_open_seeds_of_survivors_and_mask_keys_of_the_dropped_only() -> None:
    play = Play().release("s03")
    points = [int(name[1:]) + 1 for name in play.releases]
    lagrange, opening = sharing.Lagrange(points), play.opening.digest()
    opened = lagrange.combine([bytes.fromhex(r.mask_keys["s03"]) for r in play.releases.values()])
    assert keying.public_of(opened) == play.keys["s03"].mask_key
    for release in play.releases.values():
        assert set(release.seeds) == {"s00", "s01", "s02"}
        assert set(release.mask_keys) == {"s03"}
    # NB: with one key pair for both, the opened key would open what was shared with the dropped site
    for sender in ("s00", "s01", "s02"):
        context = release.context
        key = keying.agree(opened, play.keys[sender].share_key, "share", context, sender, "s03")
        with pytest.raises(Untrusted):
            site._open_share(key, play.shares[sender].sealed["s03"], context, sender, "s03")
    for name in play.league:
        entropy = federation.secret(name, opening)
        said = b"".join(play.league[name].sent.values())
        assert keying.derive(entropy, "share-key", opening).hex().encode() not in said


def test_after_the_release_and_the_end_no_secret_remains() -> None:
    play = Play().release()
    for name, member in play.league.items():
        opening = play.opening.digest()
        entropy = federation.secret(name, opening)
        secrets = [entropy, *(keying.derive(entropy, p, opening) for p in ("seed", "mask-key", "share-key"))]
        assert not any(secret.hex() in (member.journal or "") for secret in secrets)
        member.step(lambda state: state.end())
        state = member.state
        assert (state.entropy, state.held, state.release, state.released) == (None, None, None, True)
        for again in (state.keys_message, state.shares_message, state.release_message):
            with pytest.raises(KoinonError):
                again(member.signer)


def test_no_secret_shows_in_a_repr_or_an_error() -> None:
    play = Play().mask()
    state = play.league["s00"].state
    shown = repr(state) + str(state) + repr(play.hub)
    assert state.entropy is not None
    assert state.held is not None
    assert state.entropy not in shown
    assert not any(share in shown for pair in state.held.values() for share in pair)


def test_a_site_that_released_joins_no_other_attempt_and_says_the_same_again() -> None:
    play = Play().release()
    for name, member in play.league.items():
        member.step(lambda state: state.end() if state.site == "s00" else state)
        for attempt in (2, 3):
            with pytest.raises(Refused, match="opens once"):
                member.join(federation.opening(list(play.league.values()), attempt=attempt))
        if name != "s00":
            assert member.release(play.hub.votes()) == play.releases[name]
        member.join(federation.opening(list(play.league.values()), round=2))
        assert not member.state.released


def test_a_newer_attempt_erases_what_was_not_released() -> None:
    play = Play().vote()
    votes, old = play.hub.votes(), federation.secret("s00", play.opening.digest())
    later = Play(attempt=2, league=play.league)
    assert old.hex() not in (play.league["s00"].journal or "")
    with pytest.raises(KoinonError):
        play.league["s00"].release(votes)
    later.release()
    total = np.stack([words for _, words in later.uploads.values()]).sum(axis=0, dtype=np.uint32)
    masking.remove(total, later.hub.open_keys())
    np.testing.assert_array_equal(total, federation.plain_sum(play.league.values()))


@pytest.mark.parametrize(("round", "attempt", "model"), [(1, 1, "a"), (2, 1, "a"), (2, 2, "b")])
def test_a_site_does_not_go_back(round: int, attempt: int, model: str) -> None:
    play = Play()
    member, everybody = play.league["s00"], list(play.league.values())
    now = federation.opening(everybody, round=2, attempt=2)
    keys = member.join(now)
    with pytest.raises(Refused, match="already at round 2, attempt 2"):
        member.join(federation.opening(everybody, round, attempt, model))
    assert member.join(now) == keys


def test_what_a_site_does_not_join() -> None:
    play = Play()
    certificate, entropy = play.league["s00"].certificate, bytes(32)
    for change, error in (
        ({"protocol": 2}, Unsupported),
        ({"kind": Kind.INIT}, Refused),
        ({"invited": ("s01", "s02", "s03")}, Refused),
    ):
        with pytest.raises(error):
            site.join(None, play.opening.model_copy(update=change), certificate, entropy)
    with pytest.raises(ValueError, match="32 bytes"):
        site.join(None, play.opening, certificate, bytes(31))
    with pytest.raises(ValueError, match="entry of its own"):
        site.join(play.league["s00"].state, play.opening.model_copy(update={"run": "other0"}), certificate, entropy)
