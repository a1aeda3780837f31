"""The RayCluster: what KubeRay 1.5 takes, and when its pods have to be made anew."""

import re
from typing import Any

from koinon.domain.grant import Resources
from koinon_operator.names import TEMPLATE
from koinon_operator.objects import raycluster
from tests.unit.operator import samples

ELASTIC = Resources(cpus=2, memory=2**32, min_workers=1, max_workers=4)


def mark(cluster: dict[str, Any], node: str) -> str:
    return str(raycluster.template_of(cluster, node)["metadata"]["annotations"][TEMPLATE])


def test_the_head_trains_alone_unless_workers_are_granted() -> None:
    spec = raycluster.build(samples.ray(), workers=0, token="t")["spec"]
    assert set(spec) == {"headGroupSpec"}
    (group,) = raycluster.build(samples.ray(ELASTIC), workers=3, token="t")["spec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (3, 1, 4)


def test_no_autoscaler_and_no_secret_of_kuberays_own() -> None:
    text = str(raycluster.build(samples.ray(ELASTIC), workers=3, token="t"))
    assert "autoscaler" not in text.lower()
    assert "enableInTreeAutoscaling" not in text
    assert "authOptions" not in text


def test_the_token_itself_is_nowhere() -> None:
    assert "secret-token" not in str(raycluster.build(samples.ray(ELASTIC), workers=3, token="secret-token"))


def test_kuberay_takes_its_name_and_start_parameters() -> None:
    made = raycluster.build(samples.ray(ELASTIC), workers=3, token="t")
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", made["metadata"]["name"])
    assert len(made["metadata"]["name"]) <= 53
    for group in (made["spec"]["headGroupSpec"], *made["spec"]["workerGroupSpecs"]):
        assert "resources" not in group  # with num-cpus among the start parameters KubeRay refuses it
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert group["rayStartParams"]["num-cpus"] == "2"
        assert group["rayStartParams"]["include-log-monitor"] == "0"  # KubeRay drops the flag if it is "false"
    assert made["spec"]["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"
    assert "no-monitor" not in made["spec"]["workerGroupSpecs"][0]["rayStartParams"]


def test_more_workers_make_no_pod_anew() -> None:
    few, many = (raycluster.build(samples.ray(ELASTIC), workers=count, token="t") for count in (1, 4))
    assert [mark(few, node) for node in ("head", "worker")] == [mark(many, node) for node in ("head", "worker")]


def test_another_token_image_or_amount_makes_every_pod_anew() -> None:
    made = raycluster.build(samples.ray(ELASTIC), workers=1, token="t")
    others = [
        raycluster.build(samples.ray(ELASTIC), workers=1, token="u"),
        raycluster.build(samples.ray(ELASTIC, images={"worker": "other:2"}), workers=1, token="t"),
        raycluster.build(samples.ray(ELASTIC.model_copy(update={"cpus": 3})), workers=1, token="t"),
    ]
    for other in others:
        assert mark(made, "head") != mark(other, "head")
        assert mark(made, "worker") != mark(other, "worker")


def test_the_object_store_fits_into_shared_memory() -> None:
    made = raycluster.build(samples.ray(ELASTIC), workers=1, token="t")["spec"]["headGroupSpec"]
    (shared,) = [v for v in made["template"]["spec"]["volumes"] if v["name"] == "shared-mem"]
    assert int(made["rayStartParams"]["object-store-memory"]) < int(shared["emptyDir"]["sizeLimit"]) < 2**32
