"""What happens next, case by case."""

from dataclasses import replace

import pytest

from koinon.domain.run import Kind, Phase, RunState
from koinon.scheduler.decide import (
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
from koinon.scheduler.view import RunView
from tests.unit.scheduler.views import LATER, NAMES, NOW, attempt, run, sites, within

THREE = NAMES[:3]


def test_a_queued_run_starts_once_everybody_is_there() -> None:
    assert decide(run(state=RunState.QUEUED), NOW) == [Start()]


def test_it_waits_a_moment_for_a_site_that_is_away_and_then_goes_without_it() -> None:
    view = run(state=RunState.QUEUED, sites=sites(away="nice"))
    assert decide(view, NOW) == []
    assert wake_at(view, NOW) == view.gather_until
    assert decide(view, view.gather_until) == [Start()]
    opened = decide(run(sites=sites(away="nice")), view.gather_until)
    assert opened == [Open(1, Kind.TRAIN, Phase.KEYS, THREE, view.gather_until + 600)]


def test_too_few_sites_wait_long_and_then_the_reason_names_them() -> None:
    view = run(sites=(*sites(NAMES[:2]), *sites(("nantes",), refused="nantes"), *sites(("nice",), away="nice")))
    assert decide(view, view.gather_until) == []
    assert wake_at(view, view.gather_until) == view.give_up
    (failed,) = decide(view, view.give_up)
    assert isinstance(failed, Fail)
    assert "nantes did not grant it. nice are not connected." in failed.reason


def test_a_run_whose_hospitals_ended_their_grants_does_not_wait_for_them() -> None:
    ended = tuple(replace(site, granted=False, ended=True) for site in sites(NAMES[:2]))
    view = run(sites=(*ended, *sites(NAMES[2:])))
    (failed,) = decide(view, NOW)
    assert isinstance(failed, Fail)
    assert f"still grant the project; 3 are needed. Ended: {NAMES[0]}, {NAMES[1]}." in failed.reason
    assert decide(replace(view, state=RunState.QUEUED), NOW) == []  # they may grant it again
    one = run(sites=(*ended[:1], *sites(NAMES[1:])))
    assert not [action for action in decide(one, NOW) if isinstance(action, Fail)]


@pytest.mark.parametrize(
    ("initialised", "trained", "kind", "phase"),
    [(False, 0, Kind.INIT, Phase.INIT), (True, 1, Kind.TRAIN, Phase.KEYS), (True, 2, Kind.EVALUATE, Phase.KEYS)],
)
def test_rounds_come_in_order(initialised: bool, trained: int, kind: Kind, phase: Phase) -> None:
    (opened,) = decide(run(initialised=initialised, trained=trained, next_number=7), NOW)
    assert opened == Open(7, kind, phase, NAMES, NOW + 600)


def test_limits_end_a_run() -> None:
    assert isinstance(decide(run(rounds_left=0), NOW)[0], Fail)
    assert isinstance(decide(run(voids=3), NOW)[0], Fail)


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED])
def test_a_run_that_is_over_stays_so(state: RunState) -> None:
    assert decide(run(state=state), LATER) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [(Phase.KEYS, Phase.SHARES), (Phase.SHARES, Phase.MASKED), (Phase.MASKED, Phase.SURVIVORS)],
)
def test_a_phase_ends_with_the_last_answer_or_the_deadline(source: Phase, target: Phase) -> None:
    assert decide(within(attempt(source, THREE)), NOW) == []
    everybody = decide(within(attempt(source, NAMES)), NOW)
    assert everybody == [Advance(1, 1, source, target, NOW + 60, NAMES, ())]
    assert decide(within(attempt(source, THREE)), LATER) == [
        Advance(1, 1, source, target, LATER + 60, THREE, ("nice",))
    ]
    troubled = attempt(source, THREE, troubles={"nice": "disk full"})
    assert decide(within(troubled), NOW) == [Advance(1, 1, source, target, NOW + 60, THREE, ("nice",))]


def test_survivors_are_settled_by_a_quorum_of_votes() -> None:
    (advance,) = decide(within(attempt(Phase.SURVIVORS, THREE)), NOW)
    assert advance == Advance(1, 1, Phase.SURVIVORS, Phase.UNMASK, NOW + 60, THREE, ("nice",))


def test_uploads_are_folded_together_before_the_phase_ends() -> None:
    spooled = attempt(Phase.MASKED, ("lille",), spooled=frozenset({"lyon", "nantes"}))
    assert decide(within(spooled), NOW) == []
    assert decide(within(spooled), LATER) == [Fold(1, 1, ("lyon", "nantes"))]
    complete = attempt(Phase.MASKED, ("lille",), spooled=frozenset({"lyon", "nantes", "nice"}))
    assert decide(within(complete), NOW) == [Fold(1, 1, ("lyon", "nantes", "nice"))]


def test_an_attempt_with_too_few_is_made_again_without_training() -> None:
    (retry,) = decide(within(attempt(Phase.MASKED, NAMES[:2])), LATER)
    assert isinstance(retry, Retry)
    assert (retry.attempt, retry.phase, retry.deadline) == (2, Phase.KEYS, LATER + 60)
    assert "No answer yet from nantes, nice" in retry.reason
    hopeless = attempt(Phase.SHARES, troubles={"nice": "a", "lyon": "b"})
    assert isinstance(decide(within(hopeless), NOW)[0], Retry)
    (failed,) = decide(within(attempt(Phase.MASKED, NAMES[:2], number=3)), LATER)
    assert isinstance(failed, Fail)


def test_later_attempts_invite_only_sites_of_the_first() -> None:
    five = (*NAMES, "paris")
    (retry,) = decide(within(attempt(Phase.MASKED, NAMES[:2]), sites=sites(five)), LATER)
    assert isinstance(retry, Retry)
    assert retry.invited == NAMES


def test_trouble_everywhere_while_training_fails_at_once_with_the_reasons() -> None:
    current = attempt(Phase.KEYS, troubles={"nice": "nan loss at model.py:9 (incident 1)", "lyon": "disk full"})
    (failed,) = decide(within(current), NOW)
    assert isinstance(failed, Fail)
    assert "nice reported nan loss at model.py:9 (incident 1)." in failed.reason


def test_unmasking_commits_with_a_quorum_voids_after_a_release_and_retries_without_one() -> None:
    assert decide(within(attempt(Phase.UNMASK, THREE, openable=True)), NOW) == [Commit(1, 1)]
    assert decide(within(attempt(Phase.UNMASK, NAMES[:2]), released=True), NOW) == []
    assert isinstance(decide(within(attempt(Phase.UNMASK, NAMES[:2]), released=True), LATER)[0], Void)
    assert isinstance(decide(within(attempt(Phase.UNMASK)), LATER)[0], Retry)


def test_first_weights_are_asked_of_one_site_that_agrees_then_of_the_next() -> None:
    votes = dict.fromkeys(THREE, "ab" * 32) | {"nice": "cd" * 32}
    current = attempt(Phase.INIT, NAMES, votes=votes)
    (ask,) = decide(within(current, Kind.INIT), NOW)
    assert ask == AskWeights(1, 1, "lille", "ab" * 32, NOW + 60)
    asked = attempt(Phase.INIT, NAMES, votes=votes, asked="lille", asked_until=NOW + 60)
    assert decide(within(asked, Kind.INIT), NOW) == []
    assert wake_at(within(asked, Kind.INIT), NOW) == NOW + 60
    (following,) = decide(within(asked, Kind.INIT), NOW + 60)
    assert isinstance(following, AskWeights)
    assert following.site == "lyon"
    delivered = attempt(Phase.INIT, NAMES, votes=votes, asked="lille", delivered=True)
    assert decide(within(delivered, Kind.INIT), NOW) == [Commit(1, 1)]


def test_first_weights_that_differ_fail_the_run() -> None:
    votes = {name: f"{index:064x}" for index, name in enumerate(NAMES)}
    (failed,) = decide(within(attempt(Phase.INIT, NAMES, votes=votes), Kind.INIT), NOW)
    assert isinstance(failed, Fail)
    assert "first weights differ" in failed.reason


def test_a_hub_that_stopped_between_two_attempts_opens_the_second() -> None:
    (retry,) = decide(within(attempt(Phase.FAILED, expected=frozenset(), n=0, roster=0)), NOW)
    assert isinstance(retry, Retry)
    assert retry.attempt == 2


def silent(view: RunView, name: str, at: float) -> RunView:
    return replace(view, sites=tuple(replace(s, silent_at=at) if s.name == name else s for s in view.sites))


@pytest.mark.parametrize("phase", [Phase.KEYS, Phase.SHARES, Phase.MASKED])
def test_enough_answers_do_not_wait_for_a_silent_site_until_the_deadline(phase: Phase) -> None:
    view = silent(within(attempt(phase, THREE)), "nice", NOW + 30)
    assert decide(view, NOW) == []
    assert wake_at(view, NOW) == NOW + 30
    (advance,) = decide(view, NOW + 30)
    assert isinstance(advance, Advance)
    assert (advance.sites, advance.missing) == (THREE, ("nice",))


def test_silence_alone_fails_nothing() -> None:
    """Its line may be down for minutes, and without it there are too few."""
    view = silent(within(attempt(Phase.SHARES, THREE[:2])), "nice", NOW - 1)
    assert decide(view, NOW) == []
    assert wake_at(view, NOW) == LATER
