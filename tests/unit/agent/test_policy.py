"""The site refuses what its documents and its journal do not allow, whatever the hub asks."""

from typing import Any

import pytest

from koinon.agent import policy
from koinon.agent.policy import Counts, Known, Refusal
from koinon.domain import canonical
from koinon.domain.grant import Revocation
from koinon.domain.run import Kind
from tests.unit.agent.openings import NOW, SITE, grant, opening
from tests.unit.domain import manifests

MANIFEST = manifests.build()
NAME = MANIFEST.digest()
FRESH = Counts(rounds=0, releases=0)


def refused(code: str, call: Any, *arguments: Any, **named: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(*arguments, **named)
    assert caught.value.code == code
    return caught.value


def check(
    manifest: Any = MANIFEST, known: Known | None = None, counts: Counts = FRESH, floor: int = -1, **changes: Any
) -> None:
    given = changes.pop("grant", None) or grant(manifest)
    policy.check_opening(manifest, given, opening(manifest, **changes), known=known, counts=counts, floor=floor)


def test_a_manifest_must_have_the_hash_that_was_granted() -> None:
    assert policy.read_manifest(MANIFEST.encode(), NAME) == MANIFEST
    changed = manifests.build(purpose="something else")
    refused("wrong_manifest", policy.read_manifest, changed.encode(), NAME)


def test_a_manifest_with_two_members_of_one_key_is_refused() -> None:
    members = [{"site": name, "root": manifests.ROOTS["lyon"].public} for name in manifests.NAMES]
    text = canonical.encode(manifests.values(members=members))
    error = refused("bad_manifest", policy.read_manifest, text, canonical.digest(manifests.values(members=members)))
    assert "the same root" in error.what


@pytest.mark.parametrize(
    ("code", "now"), [("grant_not_yet", NOW - 11), ("grant_expired", NOW + 1_000), ("grant_expired", NOW + 10**9)]
)
def test_a_grant_counts_only_in_its_time(code: str, now: float) -> None:
    refused(code, policy.check_grant, MANIFEST, NAME, SITE, grant(MANIFEST), None, now=now)


def test_a_grant_counts_from_its_first_to_before_its_last_second() -> None:
    for now in (NOW - 10, NOW + 999.9):
        assert policy.check_grant(MANIFEST, NAME, SITE, grant(MANIFEST), None, now=now).site == SITE


def test_a_grant_is_this_roots_word_on_this_manifest() -> None:
    good = grant(MANIFEST)
    by_another = good.signed(manifests.ROOTS["nice"])
    for_another = grant(MANIFEST, manifest="0" * 64)
    longer = good.model_copy(update={"expires": good.expires + 1})
    for bad in (by_another, for_another, longer):
        refused("bad_grant", policy.check_grant, MANIFEST, NAME, SITE, bad, None, now=NOW)
    refused("no_grant", policy.check_grant, MANIFEST, NAME, SITE, None, None, now=NOW)
    refused("not_a_member", policy.check_grant, MANIFEST, NAME, "paris", good, None, now=NOW)


def test_a_revocation_ends_earlier_grants_and_spares_later_ones() -> None:
    root = manifests.ROOTS[SITE]
    revocation = Revocation(manifest=NAME, site=SITE, time=int(NOW)).signed(root)
    refused("revoked", policy.check_grant, MANIFEST, NAME, SITE, grant(MANIFEST), revocation, now=NOW)
    later = grant(MANIFEST, not_before=int(NOW) + 1)
    assert policy.check_grant(MANIFEST, NAME, SITE, later, revocation, now=NOW + 2) == later
    forged = revocation.signed(manifests.ROOTS["nice"])
    refused("bad_grant", policy.check_grant, MANIFEST, NAME, SITE, grant(MANIFEST), forged, now=NOW)


def test_a_clock_that_is_off_is_told_with_its_side() -> None:
    policy.check_clock(299.0)
    policy.check_clock(-299.0)
    assert "ahead" in refused("clock_off", policy.check_clock, 301.0).what
    assert "behind" in refused("clock_off", policy.check_clock, -301.0).what


def test_vouched_peers_are_those_whose_key_the_manifest_names_too() -> None:
    others = {name: root.public for name, root in manifests.ROOTS.items()}
    own = grant(MANIFEST, vouched=others | {"nice": "ab" * 32, "paris": "cd" * 32})
    assert policy.vouched(MANIFEST, own) == {"lille", "nantes"}


def test_the_larger_minimum_counts() -> None:
    assert policy.minimum(MANIFEST, grant(MANIFEST, min_sites=4, min_others=2)) == (4, 2)
    stricter = manifests.build(protection={"min_sites": 4, "min_others": 3})
    assert policy.minimum(stricter, grant(stricter)) == (4, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rounds", 10**6), ("strategy", "mine"), ("learning_rate", "11"), ("cohort", "age > 80"), ("local_steps", 0)],
)
def test_parameters_outside_the_manifest_are_refused_by_name(name: str, value: int | str) -> None:
    chosen = dict(opening(MANIFEST).parameters) | {name: value}
    error = refused("outside_limits", check, parameters=chosen)
    assert error.names == (name,)


def test_parameters_must_be_complete_and_known() -> None:
    chosen = dict(opening(MANIFEST).parameters)
    del chosen["seed"]
    refused("outside_limits", check, parameters=chosen)
    error = refused("outside_limits", check, parameters=dict(opening(MANIFEST).parameters) | {"filter": "x"})
    assert error.names == ()


def test_a_manifests_limits_over_its_life_are_counted_here() -> None:
    small = manifests.build(limits={"rounds": 5, "releases": 1, "round_bytes": 2**20})
    check(small, counts=Counts(4, 0))
    refused("rounds_spent", check, small, counts=Counts(5, 0))
    check(small, counts=Counts(5, 0, counted=True))
    refused("releases_spent", check, small, counts=Counts(0, 1))
    check(small, counts=Counts(0, 1, released=True))
    tight = manifests.build(limits={"round_bytes": 16})
    refused("round_too_large", check, tight)


def test_an_opening_must_make_sense() -> None:
    check()
    check(round=0, kind=Kind.INIT, model=None, base=None)
    refused("bad_opening", check, model=None)
    refused("bad_opening", check, base=1)
    refused("bad_opening", check, kind=Kind.INIT)
    refused("not_invited", check, invited=("lille", "nantes", "nice"))
    refused("bad_opening", check, invited=(*manifests.NAMES, "paris"))
    refused("bad_opening", check, invited=(*manifests.NAMES, "nice"))
    refused("too_few_sites", check, invited=("lyon", "nice"))
    refused("too_few_sites", check, invited=("lille", "lyon", "nice"), grant=grant(MANIFEST, min_sites=4))
    refused("protocol", check, protocol=2)


def test_a_hub_that_went_back_is_noticed() -> None:
    first, second = opening(MANIFEST, round=4), opening(MANIFEST, round=5, attempt=2)
    digest = canonical.digest(first.parameters)
    known = Known(digest, 5, {(4, 1): first.digest(), (5, 2): second.digest()})
    check(round=4, known=known)
    check(round=5, attempt=2, known=known)
    check(round=5, attempt=3, known=known)
    check(round=6, known=known)
    refused("hub_behind", check, round=3, known=known)
    refused("hub_behind", check, round=4, attempt=2, known=known)
    refused("hub_behind", check, round=5, attempt=1, known=known)
    refused("changed_attempt", check, round=4, known=known, audit="0" * 64)
    refused("changed_run", check, round=6, known=Known("0" * 64, 5, {}))


def test_rounds_from_before_a_restore_are_refused() -> None:
    refused("old_epoch", check, round=5, floor=5)
    check(round=6, floor=5)


def test_a_run_has_its_rounds_and_a_few_void_ones() -> None:
    last = int(opening(MANIFEST).parameters["rounds"]) + 1 + policy.VOID_ROUNDS
    check(round=last)
    refused("run_too_long", check, round=last + 1)


def test_a_run_is_scored_once_and_after_void_rounds() -> None:
    check(kind=Kind.EVALUATE, counts=Counts(1, 1, released=True, scored=policy.VOID_ROUNDS))
    over = Counts(1, 1, released=True, scored=policy.VOID_ROUNDS + 1)
    refused("scored_before", check, kind=Kind.EVALUATE, counts=over)
    check(counts=over)


def test_first_weights_are_counted_too() -> None:
    small = manifests.build(limits={"rounds": 2})
    first: dict[str, Any] = {"round": 0, "kind": Kind.INIT, "model": None, "base": None}
    check(small, counts=Counts(2, 0, inits=1), **first)
    check(small, counts=Counts(0, 0, counted=True, inits=2), **first)
    refused("rounds_spent", check, small, counts=Counts(0, 0, inits=2), **first)
