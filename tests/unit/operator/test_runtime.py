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


def test_agents_are_asked_again_after_whatever_went_wrong(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []

    def ask_all(_changed: Any) -> None:
        times.append(1)
        if len(times) > 1:
            operator.stop()
        raise OverflowError

    monkeypatch.setattr(operator.world.agents, "ask_all", ask_all)
    operator._ask_loop()
    assert len(times) == 2


def test_names_are_looked_up_again_after_whatever_went_wrong(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[int] = []

    def refresh(_changed: Any) -> None:
        times.append(1)
        if len(times) > 1:
            operator.stop()
        raise UnicodeError

    monkeypatch.setattr(operator.world.lookup, "refresh", refresh)
    operator.world.lookup.wanted.set()
    operator._lookup_loop()
    assert len(times) == 2
