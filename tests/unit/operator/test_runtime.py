"""The process: what fails for one hospital, or once, must not end what serves all."""

from typing import Any

import pytest

from koinon_operator import runtime
from koinon_operator.documents import Hospital
from koinon_operator.kinds import SITE
from koinon_operator.reconcile import foundation
from koinon_operator.runtime import Operator
from koinon_operator.settings import Settings
from koinon_operator.world import World
from tests.unit.operator import samples


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Of two hospitals, without an API server."""
    monkeypatch.setattr(runtime, "Kube", lambda connections: None)
    made = Operator(Settings({"lyon": "lyon-work", "nice": "nice-work"}, agent_seconds=0.0))
    for home in ("lyon", "nice"):
        made.world.cache.put(SITE, samples.seen(samples.site(home, f"{home}-work")))
    return made


def test_a_hospital_whose_targets_are_not_known_does_not_keep_the_others_from_starting(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def targets(_world: World, home: str, _hospital: Hospital) -> list[str]:
        asked.append(home)
        raise ValueError("Port out of range 0-65535")

    monkeypatch.setattr(foundation, "targets", targets)
    operator._first_lookup()
    assert asked == ["lyon", "nice"]


@pytest.mark.parametrize(
    ("part", "call", "loop", "error"),
    [("agents", "ask_all", "_ask_loop", OverflowError), ("lookup", "refresh", "_lookup_loop", UnicodeError)],
)
def test_what_goes_round_in_the_background_goes_on_after_whatever_went_wrong(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, part: str, call: str, loop: str, error: type[Exception]
) -> None:
    times: list[int] = []

    def fail(_changed: Any) -> None:
        times.append(1)
        if len(times) > 1:
            operator.stop()
        raise error

    monkeypatch.setattr(getattr(operator.world, part), call, fail)
    operator.world.lookup.wanted.set()
    getattr(operator, loop)()
    assert len(times) == 2
