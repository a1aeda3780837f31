"""Conditions: what is said, and since when."""

import pytest

from koinon_operator import egress, observe, status
from koinon_operator.kinds import Object
from koinon_operator.objects import raycluster
from koinon_operator.status import false, true, unknown
from tests.unit.operator import samples

CLUSTER = raycluster.build(samples.ray(), workers=0, token="t")


def head(**changes: object) -> Object:
    pod = samples.pod(CLUSTER, "head")
    pod["status"] = samples.pod_status(**changes)  # type: ignore[arg-type]
    return pod


def test_the_time_of_a_transition_changes_with_the_truth_alone() -> None:
    first = status.conditions({}, [true("Ready", "Ready", "a"), false("Revoked", "No")], generation=1, now=100.0)
    before = {"conditions": first}
    second = status.conditions(before, [true("Ready", "Other", "b"), true("Revoked", "Yes")], generation=2, now=200.0)
    assert [found["lastTransitionTime"] for found in second] == [status.time_text(100), status.time_text(200)]
    assert [found["reason"] for found in second] == ["Other", "Yes"]
    assert {found["observedGeneration"] for found in second} == {2}


def test_the_same_wish_gives_the_same_status() -> None:
    wanted = [true("Ready", "Ready", "a")]
    first = status.conditions({}, wanted, generation=1, now=100.0)
    assert status.conditions({"conditions": first}, wanted, generation=1, now=500.0) == first


def test_a_message_that_quotes_too_much_is_cut() -> None:
    (told,) = status.conditions({}, [false("Verified", "BadDocument", "x" * 40_000)], generation=1, now=100.0)
    assert len(told["message"]) < 32_768  # what the definition of the resource allows


def test_since_when() -> None:
    known = {"conditions": status.conditions({}, [false("Ready", "No")], generation=1, now=1_700_000_000)}
    assert status.since(known, "Ready", "False") == 1_700_000_000
    assert status.since(known, "Ready", "True") is None
    assert status.since({}, "Ready", "False") is None
    assert not status.is_true(known, "Ready")


def test_ready_names_what_is_false_before_what_is_unknown() -> None:
    both = [true("A", "Fine"), unknown("B", "Trying", "b"), false("C", "Broken", "c")]
    assert status.summary(both, "Ready", "") == false("Ready", "Broken", "c")
    assert status.summary(both[:2], "Ready", "").reason == "Trying"
    assert status.summary(both[:1], "Ready", "all well") == true("Ready", "Ready", "all well")


def test_egress_is_denied_once_each_pod_proved_it() -> None:
    assert egress.condition([]).status == "Unknown"
    assert egress.condition([head()]).status == "True"
    assert egress.condition([head(), head(ready=False, proven=False)]).reason == "Trying"
    reached = egress.condition([head(), head(ready=False, proven=False, message="reachable: 10.0.0.1:443")])
    assert (reached.status, reached.reason) == ("False", "Reachable")
    assert "10.0.0.1:443" in reached.message


def test_a_pod_that_reached_something_before_and_tries_again_still_counts() -> None:
    pod = head(ready=False, proven=False)
    (said,) = pod["status"]["initContainerStatuses"]
    said["lastState"] = {"terminated": {"exitCode": 1, "message": "reachable: 10.0.0.1:443"}}
    assert egress.condition([pod]).reason == "Reachable"
    said["state"] = {"terminated": {"exitCode": 0}}
    assert egress.condition([pod]).reason == "Proven"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (2, '"siem:99999" is not HOST:PORT'),
        (137, ""),
        (143, ""),
        (255, ""),
        (1, "Traceback (most recent call last): …"),
        (137, "reachable: 10.0.0.1:443"),
    ],
)
def test_a_probe_that_failed_proves_nothing_and_accuses_nobody(code: int, message: str) -> None:
    pod = head(ready=False, proven=False)
    ended = {"exitCode": code, "message": message, "reason": "OOMKilled" if code == 137 else "Error"}
    (said,) = pod["status"]["initContainerStatuses"]
    for state, before in (({"terminated": ended}, {}), ({"running": {}}, {"terminated": ended})):
        said |= {"state": state, "lastState": before}
        found = egress.condition([head(), pod])
        assert (found.status, found.reason) == ("Unknown", "ProbeFailed")
        assert str(code) in found.message
        assert message in found.message
    reached = head(ready=False, proven=False, message="reachable: 10.0.0.1:443")
    assert egress.condition([pod, reached]).reason == "Reachable"


def test_what_a_pod_reached_that_is_going_counts_no_longer() -> None:
    going = head(ready=False, proven=False, message="reachable: 10.0.0.1:443")
    going["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:20Z"
    assert egress.condition([going]).reason == "NotTried"
    assert egress.condition([head(), going]).reason == "Proven"


def waiting(seconds: float, hint: str = "") -> observe.Waiting:
    return observe.Waiting(since=0.0, now=seconds, limit=300.0, hint=hint)


def test_a_cluster_is_ready_with_its_head_and_its_least_workers() -> None:
    made = raycluster.build(samples.ray(), workers=0, token="t")
    worker = samples.pod(made, "head")
    worker["metadata"]["labels"]["koinon.dev/node"] = "worker"
    assert observe.condition([head()], least=0, wanted=2, waiting=waiting(1)).status == "True"
    assert observe.condition([head()], least=1, wanted=2, waiting=waiting(1)).reason == "Creating"
    ready = observe.condition([head(), worker], least=1, wanted=2, waiting=waiting(1))
    assert (ready.status, ready.message) == ("True", "The head and 1 of 2 workers are ready.")
    assert observe.ready_workers([head(), worker]) == 1


def test_a_pod_that_is_being_deleted_does_not_count() -> None:
    pod = head()
    pod["metadata"]["deletionTimestamp"] = "2023-11-14T22:13:20Z"
    assert observe.condition([pod], least=0, wanted=0, waiting=waiting(1)).reason == "Creating"


def test_why_a_cluster_is_not_ready() -> None:
    nowhere = head(ready=False)
    nowhere["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: Insufficient cpu."}
    ]
    found = observe.condition([nowhere], least=0, wanted=0, waiting=waiting(1))
    assert found.reason == "PodPending"
    assert "Insufficient cpu" in found.message
    unpulled = head(ready=False)
    unpulled["status"]["containerStatuses"] = [
        {"name": "ray-head", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
    ]
    found = observe.condition([unpulled], least=0, wanted=0, waiting=waiting(1))
    assert found.reason == "PodFailing"
    assert "ImagePullBackOff" in found.message
    killed = head(ready=False)
    killed["status"]["containerStatuses"] = [
        {
            "name": "ray-head",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"reason": "OOMKilled"}},
        }
    ]
    assert "grant more" in observe.condition([killed], least=0, wanted=0, waiting=waiting(1)).message


def test_kuberays_silence_has_an_end() -> None:
    assert observe.condition([], least=0, wanted=0, waiting=waiting(299)).reason == "Creating"
    found = observe.condition([], least=0, wanted=0, waiting=waiting(300, hint="The RayCluster spec is invalid"))
    assert found.reason == "ClusterTimeout"
    assert "KubeRay" in found.message
    assert "spec is invalid" in found.message
