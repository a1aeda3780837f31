"""What Prometheus reads of the operator: conditions, quota, and counters that begin at 0."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from koinon_operator import gauges
from koinon_operator.cache import Cache
from koinon_operator.kinds import GRANT, POD, RESOURCE_QUOTA, Object
from tests.unit.operator import samples

HOSPITALS = {"lyon": "lyon-work", "nice": "nice-work"}


def shown(cache: Cache) -> dict[tuple[str, ...], float]:
    """Every series: its name and the values of its labels, sorted by their names."""
    text = gauges.text(cache, HOSPITALS).decode()
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(one.name, *(one.labels[name] for name in sorted(one.labels))): one.value for one in found}


def granted(name: str, **conditions: str) -> Object:
    """A Grant with these conditions; the value may be truth/Reason."""
    listed = []
    for kind, told in conditions.items():
        truth, _, reason = told.partition("/")
        listed.append({"type": kind, "status": truth, "reason": reason, "lastTransitionTime": "2023-11-14T22:13:20Z"})
    made: dict[str, Any] = samples.seen(samples.grant_resource(), name=name)
    return made | {"status": {"conditions": listed}}


def test_grants_are_counted_by_the_truth_of_their_conditions() -> None:
    cache = Cache()
    cache.put(GRANT, granted("a", Ready="True", EgressDenied="True", ClusterReady="True"))
    cache.put(GRANT, granted("b", Ready="False", EgressDenied="False/Reachable"))
    cache.put(GRANT, granted("c"))
    found = shown(cache)
    name = "koinon_operator_conditions"
    assert [found[name, "EgressDenied", "lyon", truth] for truth in ("True", "False", "Unknown")] == [1, 1, 1]
    assert [found[name, "ClusterReady", "lyon", truth] for truth in ("True", "False", "Unknown")] == [1, 0, 2]
    assert {found[name, condition, "nice", "False"] for condition in gauges.CONDITIONS} == {0}


def test_what_has_ended_or_does_not_count_raises_no_alarm() -> None:
    cache = Cache()
    cache.put(GRANT, granted("a", EgressDenied="False", Revoked="True"))
    cache.put(GRANT, granted("b", EgressDenied="False", Expired="True"))
    cache.put(GRANT, granted("c", EgressDenied="False", Verified="False/Superseded"))
    cache.put(GRANT, granted("d", EgressDenied="False", Revoked="False", Expired="False"))
    assert shown(cache)["koinon_operator_conditions", "EgressDenied", "lyon", "False"] == 1


def test_a_quota_is_shown_in_cores_bytes_and_pieces() -> None:
    cache = Cache()
    hard = {"requests.cpu": "8", "limits.memory": "64Gi", "pods": "100"}
    used = {"requests.cpu": "1500m", "limits.memory": "2Gi", "pods": "3"}
    quota = RESOURCE_QUOTA.make("lyon-work", "koinon", {"status": {"hard": hard, "used": used}})
    cache.put(RESOURCE_QUOTA, samples.seen(quota))
    found = shown(cache)
    name = "koinon_operator_quota"
    assert [found[name, "lyon", kind, "requests.cpu"] for kind in ("used", "hard")] == [1.5, 8]
    assert [found[name, "lyon", kind, "limits.memory"] for kind in ("used", "hard")] == [2 * 2**30, 64 * 2**30]
    assert [found[name, "lyon", kind, "pods"] for kind in ("used", "hard")] == [3, 100]
    assert not [key for key in found if key[0] == name and "nice" in key]


def test_ray_pods_are_counted_by_phase() -> None:
    cache = Cache()
    for number, phase in enumerate(("Pending", "Running", "Running")):
        labels = {"koinon.dev/project": "0123456789ab"}
        pod = POD.make("lyon-work", f"p-{number}", {"status": {"phase": phase}}, labels=labels)
        cache.put(POD, samples.seen(pod))
    cache.put(POD, samples.seen(POD.make("lyon-work", "loader", {"status": {"phase": "Failed"}})))
    found = shown(cache)
    assert [found["koinon_operator_pods", "lyon", phase] for phase in ("Pending", "Running", "Failed")] == [1, 2, 0]


def test_each_hospital_names_its_work_namespace() -> None:
    found = shown(Cache())
    assert found["koinon_operator_hospital_info", "lyon", "lyon-work"] == 1
    assert found["koinon_operator_hospital_info", "nice", "nice-work"] == 1


def test_a_first_event_is_an_increase() -> None:
    found = shown(Cache())
    for name in ("koinon_operator_drift_repaired_total", "koinon_operator_contested_total"):
        assert (name, "NetworkPolicy") in found
    assert ("koinon_operator_reconcile_errors_total", "project") in found
    assert ("koinon_operator_removal_seconds_count",) in found
