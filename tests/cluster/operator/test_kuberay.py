"""With KubeRay itself and the worker's image: pods come and go as the Grant says, and those that are right stay."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from koinon.domain.grant import Resources
from koinon_operator.kinds import CLAIM, POD, RAY_CLUSTER, SITE, Object
from koinon_operator.names import NODE, TEMPLATE, cluster, short
from tests.cluster import kubectl, kuberay
from tests.cluster.oci import builder
from tests.cluster.operator import seeing
from tests.cluster.operator.conftest import Hospital
from tests.cluster.operator.running import running
from tests.cluster.operator.test_life import revoke

SMALL = Resources(cpus=1, memory=3 * 2**29, disk=2**30, fit_seconds=60, min_workers=1, max_workers=2)
START_SECONDS = 240.0


@pytest.fixture
def small(hospital: Hospital, images: None) -> Iterator[Hospital]:
    """A hospital whose data is a volume of the cluster's own, served by KubeRay."""
    hospital.kube.delete(SITE, hospital.home, "lyon")
    hospital.kube.create(CLAIM, _claim(hospital.work))
    hospital.declare(
        images={"worker": builder.name("worker")},
        datasets=[{"name": "heart", "claimName": "data", "path": "heart.csv"}],
        quota={"cpu": 8, "memory": "16Gi", "pods": 3},
        requestPercent=5,
    )
    kuberay.bind(hospital.work)
    kuberay.watch(hospital.work)
    yield hospital
    kuberay.unwatch(hospital.work)


def _claim(work: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return CLAIM.make(work, "data", {"spec": spec})


def _running(hospital: Hospital) -> dict[str, Object]:
    """Pods by uid."""
    return {pod["metadata"]["uid"]: pod for pod in hospital.kube.list(POD, hospital.work)[0]}


def test_kuberays_pods_are_kept_follow_the_quota_and_are_gone_in_seconds(small: Hospital, tmp_path: Path) -> None:
    with running({small.home: small.work}, tmp_path / "log"):
        began = time.monotonic()
        grant = small.grant(resources=SMALL)
        read = partial(small.seen, grant)
        seeing.wait(read, "Ready", "True", seconds=START_SECONDS)
        kubectl.until(lambda: read()["status"].get("workers") == 2, "two workers", seconds=START_SECONDS)
        print(f"head and two workers after {time.monotonic() - began:.1f} s")
        first = _running(small)
        assert sorted(pod["metadata"]["labels"][NODE] for pod in first.values()) == ["head", "worker", "worker"]
        assert seeing.condition(read(), "EgressDenied")["reason"] == "Proven"
        for pod in first.values():
            assert pod["spec"]["initContainers"][0]["name"] == "denial"
            assert pod["metadata"]["annotations"][TEMPLATE]

        name = cluster(short(grant["spec"]["manifest"]))
        change = '{"spec": {"headGroupSpec": {"template": {"spec": {"hostNetwork": true}}}}}'
        kubectl.run("-n", small.work, "patch", "raycluster", name, "--type=merge", "-p", change)
        kubectl.until(lambda: seeing.events(small.kube, small.home, "DriftRepaired"), "the edit is undone")
        assert "hostNetwork" not in str(small.kube.get(RAY_CLUSTER, small.work, name)["spec"])

        kubectl.run("-n", small.home, "patch", "site", "lyon", "--type=merge", "-p", '{"spec": {"quota": {"pods": 2}}}')
        kubectl.until(lambda: len(_running(small)) == 2, "one worker less", seconds=60)
        assert set(_running(small)) < set(first)
        assert read()["status"]["wantedWorkers"] == 1
        assert seeing.events(small.kube, small.home, "PodReplaced") == []

        began = revoke(small, grant)
        seeing.wait(read, "Revoked", "True")
        print(f"from the revocation to nothing left: {time.monotonic() - began:.1f} s, {read()['status']['removal']}")
        assert seeing.left(small.kube, small.work, grant["spec"]["manifest"]) == []


def test_a_missing_image_and_a_kuberay_that_does_not_look_are_told(small: Hospital, tmp_path: Path) -> None:
    change = '{"spec": {"images": {"worker": "localhost/no:1"}}}'
    kubectl.run("-n", small.home, "patch", "site", "lyon", "--type=merge", "-p", change)
    with running({small.home: small.work}, tmp_path / "log", cluster_timeout="20"):
        grant = small.grant(name="pull")
        found = seeing.wait(partial(small.seen, grant), "ClusterReady", "False", "PodFailing", seconds=120)
        assert "localhost/no:1" in seeing.condition(found, "Ready")["message"]
        kuberay.unwatch(small.work)
        silent = small.grant(name="silent")
        found = seeing.wait(partial(small.seen, silent), "ClusterReady", "False", "ClusterTimeout", seconds=120)
        assert "Does KubeRay run" in seeing.condition(found, "Ready")["message"]
