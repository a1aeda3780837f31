"""What is read of a hospital's Grants, all together: one that is bad stays its own trouble."""

import copy
import json
from typing import Any

import pytest

from koinon_operator.cache import Cache
from koinon_operator.documents import Consent, read_grant
from koinon_operator.kinds import GRANT, SITE, Object
from koinon_operator.names import short
from koinon_operator.plan import State
from koinon_operator.settings import Settings
from koinon_operator.world import World
from tests.unit.operator import samples

HEART, LUNG = samples.manifest("heart"), samples.manifest("lung")


def world(*grants: Object) -> World:
    """Of lyon, with nothing but its cache and a clock."""
    cache, rest = Cache(), dict.fromkeys(("kube", "keeper", "recorder", "queue", "agents", "lookup"))
    cache.put(SITE, samples.seen(samples.site()))
    for grant in grants:
        cache.put(GRANT, samples.seen(grant))
    given: dict[str, Any] = {**rest, "settings": Settings({"lyon": "lyon-work"}), "cache": cache}
    return World(**given, clock=lambda: samples.NOW + 10.0)


def poisoned(**changes: Any) -> Object:
    """A good Grant of lung, with changes to the document that nobody signed."""
    made = copy.deepcopy(samples.grant_resource(LUNG))
    made["spec"]["document"] = json.dumps(json.loads(made["spec"]["document"]) | changes)
    return made


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "\ud800"},
        {"image": "\ud800"},
        {"parameters": {"mu": {"kind": "real", "minimum": "NaN", "maximum": "1", "default": "0"}}},
        {"protection": {"clip": "1e2000000000"}},
    ],
)
def test_a_document_that_cannot_be_read_is_the_trouble_of_its_own_grant(changes: dict[str, Any]) -> None:
    ended = samples.revocation(samples.grant(HEART), now=samples.NOW + 5)
    plans = world(samples.grant_resource(HEART, ended=ended), poisoned(**changes)).plans("lyon")
    assert plans[short(HEART.digest())].grants[0].state is State.REVOKED
    (bad,) = plans[short(LUNG.digest())].grants
    assert bad.problem is not None
    assert bad.problem.reason == "BadDocument"


@pytest.mark.parametrize(
    ("part", "reason"),
    [("koinon.domain.manifest.Manifest.digest", "BadDocument"), ("koinon_operator.verify._signatures", "Malformed")],
)
def test_whatever_is_raised_while_a_grant_is_checked_is_its_verdict(
    monkeypatch: pytest.MonkeyPatch, part: str, reason: str
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    grants = [samples.grant_resource(HEART), samples.grant_resource(LUNG)]
    monkeypatch.setattr(part, fails)
    read = world(*grants).grants("lyon")
    assert [found.verdict.problem.reason for found in read if found.verdict.problem] == [reason, reason]
    assert all("ZeroDivisionError" in str(found.verdict.problem) for found in read)


def test_a_grant_that_cannot_be_read_is_named_and_the_other_governs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(resource: Object) -> Consent:
        if resource["spec"]["manifest"] == LUNG.digest():
            raise RecursionError
        return read_grant(resource)

    monkeypatch.setattr("koinon_operator.world.read_grant", fails)
    found = world(samples.grant_resource(HEART), samples.grant_resource(LUNG))
    assert found.plans("lyon")[short(HEART.digest())].governing is not None
    (bad,) = found.grants("lyon", short(LUNG.digest()))
    assert bad.consent is None
    assert bad.verdict.problem is not None
    assert bad.verdict.problem.reason == "Malformed"


def test_a_site_that_cannot_be_served_leaves_its_grants_waiting() -> None:
    found = world(samples.grant_resource(HEART))
    broken = samples.site()
    del broken["spec"]["hub"]
    found.cache.put(SITE, samples.seen(broken))
    (read,) = found.grants("lyon")
    assert read.verdict.problem is not None
    assert read.verdict.problem.reason == "NoSite"
