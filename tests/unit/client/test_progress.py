"""Steps out of a run's events, whatever breaks between them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from koinon.client import progress

MEMBERS = ("lyon", "nice", "lille")


def _events() -> list[dict[str, Any]]:
    """A run as a hub tells it: init, a round, a void round, an evaluation. Numbers as canonical decimal strings."""
    rows: list[tuple[str, dict[str, Any]]] = [
        ("run.submitted", {}),
        ("round.opened", {"round": 0, "kind": "init"}),
        ("round.committed", {"round": 0, "kind": "init", "scored": -1, "bytes": 9, "survivors": [], "seconds": {}}),
        ("round.opened", {"round": 1, "kind": "train"}),
        ("attempt.advanced", {"round": 1, "phase": "shares"}),
        (
            "round.committed",
            {
                "round": 1,
                "kind": "train",
                "scored": 0,
                "bytes": 2432,
                "survivors": ["lyon", "nice"],
                "metrics": {"accuracy": {"mean": "0.6", "pooled": "0.7"}, "auc": {}},
                "seconds": {"train": "0.5", "commit": "0.25", "round": "0.75", "lyon.keys": "0.4", "nice.keys": "0.45"},
            },
        ),
        ("round.opened", {"round": 2, "kind": "train"}),
        ("round.void", {"round": 2, "reason": "too few shares"}),
        ("round.opened", {"round": 3, "kind": "evaluate"}),
        ("round.committed", {"round": 3, "kind": "evaluate", "scored": 1, "survivors": list(MEMBERS), "seconds": {}}),
        ("run.completed", {}),
    ]
    return [{"seq": n, "time": 1_000 * n, "kind": kind, "data": data} for n, (kind, data) in enumerate(rows, 1)]


def _fold(events: list[dict[str, Any]]) -> list[progress.Step]:
    fold = progress.Fold(MEMBERS)
    return [step for event in events if (step := fold.take(event)) is not None]


def test_every_finished_round_is_one_step() -> None:
    steps = _fold(_events())
    assert [(s.round, s.kind, s.void) for s in steps] == [
        (0, "init", False),
        (1, "train", False),
        (2, "train", True),
        (3, "evaluate", False),
    ]


def test_a_step_says_what_was_measured_who_was_missing_and_whom_it_waited_for() -> None:
    step = _fold(_events())[1]
    assert step.model == 0
    assert step.metrics == {"accuracy": 0.6}
    assert step.pooled == {"accuracy": 0.7}
    assert step.seconds == {"train": 0.5, "commit": 0.25}
    assert step.missing == ("lille",)
    assert step.slowest == "nice"
    assert step.total_seconds == 2.0


@given(st.lists(st.integers(0, 10), max_size=6))
def test_broken_lines_repeat_nothing(cuts: list[int]) -> None:
    """A client that comes back may be told again what it knows; signs of life and waits lie between."""
    events, stream = _events(), []
    for cut in cuts:
        stream += [*events[:cut], {}, {"kind": "waiting", "seq": cut, "waiting": []}]
    # The chain is told in order from where the client was at most, so an event never comes before an earlier one.
    told: list[dict[str, Any]] = []
    highest = 0
    for event in [*stream, *events]:
        if int(event.get("seq", 0)) <= highest + 1:
            told.append(event)
            highest = max(highest, int(event.get("seq", 0)) if event.get("data") is not None else highest)
    assert _fold(told) == _fold(events)


def test_waits_for_the_same_reason_are_one_phrase() -> None:
    waits = [
        {"for": "lyon", "since": 0.0, "until": 60.0, "why": "trains"},
        {"for": "nice", "since": 0.0, "until": 60.0, "why": "trains"},
        {"for": "lille", "since": 0.0, "until": 60.0, "why": "is not connected"},
    ]
    told = progress.describe_waits(waits)
    assert told.startswith("waiting for lyon, nice: trains")
    assert "waiting for lille: is not connected" in told
