"""What cannot be served becomes a condition that says what to do, before KubeRay sees anything."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from koinon.domain.grant import Resources
from koinon_operator.kinds import CLAIM, GRANT, NETWORK_POLICY, POD, RAY_CLUSTER, SITE
from tests.cluster import kubectl
from tests.cluster.operator import seeing
from tests.cluster.operator.conftest import Hospital, claim
from tests.cluster.operator.rays import Rays
from tests.cluster.operator.running import running
from tests.unit.domain import manifests
from tests.unit.operator import samples

OTHER = manifests.ROOTS["nice"]

Change = Callable[[dict[str, Any]], None]


def _signature(spec: dict[str, Any]) -> None:
    spec["signature"] = "0" * 128


def _more_memory(spec: dict[str, Any]) -> None:
    spec["resources"]["memory"] *= 2


def _another_document(spec: dict[str, Any]) -> None:
    spec["document"] = samples.manifest("another").encode().decode()


def _no_document(spec: dict[str, Any]) -> None:
    spec["document"] = '{"version": 1}'


def _revocation(spec: dict[str, Any]) -> None:
    spec["revocation"] = {"time": int(time.time()), "signature": "0" * 128}


EDITED: dict[str, tuple[str, Change]] = {
    "signature": ("BadSignature", _signature),
    "changed": ("BadSignature", _more_memory),
    "mismatch": ("ManifestMismatch", _another_document),
    "document": ("BadDocument", _no_document),
    "revocation": ("BadRevocation", _revocation),
}

SIGNED: dict[str, tuple[str, dict[str, Any]]] = {
    "dataset": ("UnknownDataset", {"dataset": "lungs"}),
    "cores": ("OverQuota", {"resources": Resources(cpus=65)}),
    "workers": ("OverQuota", {"resources": Resources(min_workers=100, max_workers=100)}),
    "gpus": ("OverQuota", {"resources": Resources(gpus=1)}),
    "early": ("NotYetValid", {"now": time.time() + 3_600}),
}


@pytest.mark.usefixtures("operator", "rays")
def test_each_kind_of_invalid_grant_becomes_its_condition(hospital: Hospital) -> None:
    made = {}
    for name, (reason, change) in EDITED.items():
        resource = samples.grant_resource(samples.manifest(name), home=hospital.home, now=time.time())
        change(resource["spec"])
        made[hospital.kube.create(GRANT, resource)["metadata"]["name"]] = reason
    for name, (reason, changes) in SIGNED.items():
        made[hospital.grant(name, **changes)["metadata"]["name"]] = reason
    pinned = samples.manifest("pinned", image="registry.example/koinon-worker@sha256:" + "0" * 64)
    image = samples.grant_resource(pinned, home=hospital.home, now=time.time())
    made[hospital.kube.create(GRANT, image)["metadata"]["name"]] = "ImageMismatch"
    stranger = samples.grant_resource(
        samples.manifest("stranger"), home=hospital.home, root=samples.ROOT, now=time.time()
    )
    stranger["spec"]["site"] = "nantes"
    made[hospital.kube.create(GRANT, stranger)["metadata"]["name"]] = "WrongSite"
    for name, reason in made.items():
        read = partial(hospital.kube.get, GRANT, hospital.home, name)
        found = seeing.wait(read, "Verified", "False", reason)
        ready = seeing.condition(found, "Ready")
        assert (ready["status"], ready["reason"]) == ("False", reason)
        assert len(ready["message"]) > 20
        assert seeing.events(hospital.kube, hospital.home, reason)
    assert not hospital.kube.list(RAY_CLUSTER, hospital.work)[0]
    assert not hospital.kube.list(POD, hospital.work)[0]


@pytest.mark.usefixtures("operator", "rays")
def test_a_grant_without_a_site_waits_and_is_served_once_there_is_one(hospital: Hospital) -> None:
    hospital.kube.delete(SITE, hospital.home, "lyon")
    grant = hospital.grant()
    seeing.wait(lambda: hospital.seen(grant), "Verified", "False", "NoSite")
    hospital.declare()
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")


@pytest.mark.usefixtures("operator", "rays")
def test_a_second_site_does_not_count_and_says_so(hospital: Hospital) -> None:
    seeing.wait(hospital.site, "Isolated", "True")
    time.sleep(1.1)  # creation times have seconds
    hospital.kube.create(SITE, samples.site(hospital.home, hospital.work, name="lyon-two"))
    seeing.wait(partial(hospital.kube.get, SITE, hospital.home, "lyon-two"), "Ready", "False", "Duplicate")


@pytest.mark.usefixtures("operator", "rays")
def test_a_site_of_another_work_namespace_is_refused(hospital: Hospital) -> None:
    hospital.kube.delete(SITE, hospital.home, "lyon")
    hospital.declare(workNamespace="elsewhere")
    seeing.wait(hospital.site, "Isolated", "False", "WorkNamespaceMismatch")


@pytest.mark.usefixtures("operator", "rays")
def test_a_missing_claim_is_named_and_nothing_starts_before_it_is_there(hospital: Hospital) -> None:
    hospital.kube.delete(SITE, hospital.home, "lyon")
    hospital.declare(datasets=[{"name": "heart", "claimName": "later", "path": "heart.csv"}])
    seeing.wait(hospital.site, "DataReady", "False", "ClaimMissing")
    grant = hospital.grant()
    found = seeing.wait(lambda: hospital.seen(grant), "DataAvailable", "False", "ClaimMissing")
    assert "later" in seeing.condition(found, "Ready")["message"]
    assert not hospital.kube.list(RAY_CLUSTER, hospital.work)[0]
    hospital.kube.create(CLAIM, claim(hospital.work, "later"))
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True", seconds=40)


@pytest.mark.usefixtures("operator")
def test_a_pod_that_reaches_what_it_must_not_is_told(hospital: Hospital, rays: Rays) -> None:
    rays.ready, rays.proven, rays.message = False, False, "reachable: 10.96.0.1:443"
    grant = hospital.grant()
    found = seeing.wait(lambda: hospital.seen(grant), "EgressDenied", "False", "Reachable")
    assert "10.96.0.1:443" in seeing.condition(found, "Ready")["message"]
    assert seeing.events(hospital.kube, hospital.home, "EgressReachable")
    rays.ready, rays.proven, rays.message = True, True, ""
    for pod in hospital.kube.list(POD, hospital.work)[0]:
        rays.report(pod)
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")


def test_kuberay_that_does_nothing_is_reported_in_time(hospital: Hospital, tmp_path: Path) -> None:
    with running({hospital.home: hospital.work}, tmp_path / "log", cluster_timeout="2"):
        grant = hospital.grant()
        found = seeing.wait(lambda: hospital.seen(grant), "ClusterReady", "False", "ClusterTimeout")
        assert "KubeRay" in seeing.condition(found, "Ready")["message"]
        assert seeing.events(hospital.kube, hospital.home, "ClusterTimeout")


@pytest.mark.usefixtures("operator", "rays")
def test_the_quota_is_shared_what_waits_starts_when_room_is_there_and_workers_follow(hospital: Hospital) -> None:
    hospital.kube.delete(SITE, hospital.home, "lyon")
    hospital.declare(quota={"cpu": "8", "memory": "64Gi", "pods": 4})
    first = hospital.grant("first", resources=Resources(min_workers=1, max_workers=5))
    found = seeing.wait(lambda: hospital.seen(first), "Ready", "True")
    found = _workers(hospital, first, 3)
    second = hospital.grant("second", resources=Resources(min_workers=1, max_workers=1), now=time.time() + 1)
    _workers(hospital, first, 1)
    seeing.wait(lambda: hospital.seen(second), "Ready", "True")
    third = hospital.grant("third", now=time.time() + 1)
    found = seeing.wait(lambda: hospital.seen(third), "ClusterReady", "False", "QuotaExhausted")
    assert "quota" in seeing.condition(found, "Ready")["message"]
    hospital.kube.delete(GRANT, hospital.home, second["metadata"]["name"])
    seeing.wait(lambda: hospital.seen(third), "Ready", "True")
    _workers(hospital, first, 2)


def _workers(hospital: Hospital, grant: dict[str, Any], count: int) -> dict[str, Any]:
    def right() -> bool:
        status = hospital.seen(grant).get("status") or {}
        return (status.get("workers"), status.get("wantedWorkers")) == (count, count)

    kubectl.until(right, f"{count} workers of {grant['metadata']['name']}")
    return hospital.seen(grant)


def test_the_operator_does_nothing_outside_the_two_namespaces(hospital: Hospital, rays: Rays, tmp_path: Path) -> None:
    """With the rights that the chart koinon-site gives it, and no other."""
    account = _restricted(hospital)
    token = kubectl.run("-n", hospital.home, "create", "token", account).strip()
    config = tmp_path / "config"
    config.write_text(kubectl.run("config", "view", "--raw", "--minify", "--flatten"))
    kubectl.run("config", "set-credentials", "operator", f"--token={token}", f"--kubeconfig={config}")
    kubectl.run("config", "set-context", "--current", "--user=operator", f"--kubeconfig={config}")
    before = os.environ["KUBECONFIG"]
    os.environ["KUBECONFIG"] = str(config)
    try:
        with running({hospital.home: hospital.work}, tmp_path / "log") as operator:
            os.environ["KUBECONFIG"] = before
            grant = hospital.grant()
            seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
            hospital.kube.delete(NETWORK_POLICY, hospital.work, "koinon-deny-all")
            kubectl.until(lambda: hospital.kube.list(NETWORK_POLICY, hospital.work)[0][0], "deny-all is back")
            hospital.kube.delete(GRANT, hospital.home, grant["metadata"]["name"])
            manifest = grant["spec"]["manifest"]
            kubectl.until(lambda: not seeing.left(hospital.kube, hospital.work, manifest), "nothing is left")
            assert operator.stop() == 0
        assert "orbidden" not in (tmp_path / "log").read_text()
    finally:
        os.environ["KUBECONFIG"] = before


def _restricted(hospital: Hospital) -> str:
    own = {"resourceNames": ["koinon-ray"]}
    all_of = ["get", "list", "watch", "create", "update", "delete"]
    kept = ["get", "list", "watch", "update", "delete"]
    home = [
        {"apiGroups": ["koinon.dev"], "resources": ["sites", "grants"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["koinon.dev"], "resources": ["sites/status", "grants/status"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["events", "secrets", "configmaps"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": kept, **own},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": kept, "resourceNames": ["koinon-consents"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"], "resourceNames": ["koinon-agent-0"]},
    ]
    work = [
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": all_of},
        {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": all_of},
        {
            "apiGroups": [""],
            "resources": ["resourcequotas", "limitranges", "serviceaccounts", "services"],
            "verbs": all_of,
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": kept, **own},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": kept, "resourceNames": ["koinon-denial"]},
    ]
    kubectl.run("-n", hospital.home, "create", "serviceaccount", "koinon-operator")
    rbac = "rbac.authorization.k8s.io"
    for namespace, rules in ((hospital.home, home), (hospital.work, work)):
        meta = {"name": "koinon-operator", "namespace": namespace}
        kubectl.apply(
            {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": meta, "rules": rules},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "koinon-operator"},
                "subjects": [{"kind": "ServiceAccount", "name": "koinon-operator", "namespace": hospital.home}],
            },
        )
    return "koinon-operator"
