"""A Grant's life: made in order, kept, ended by revocation, time or deletion, also while the operator was down."""

import json
import time
from functools import partial
from pathlib import Path

import pytest

from koinon.domain.errors import NotFound
from koinon_operator.clean import clean
from koinon_operator.kinds import (
    CONFIG_MAP,
    GRANT,
    LIMIT_RANGE,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    RESOURCE_QUOTA,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    SITE,
    Object,
)
from koinon_operator.names import cluster, head, short
from koinon_operator.settings import Settings
from tests.cluster import kubectl
from tests.cluster.operator import seeing
from tests.cluster.operator.conftest import Hospital
from tests.cluster.operator.rays import Rays
from tests.cluster.operator.running import Running, running
from tests.unit.operator import samples


def revoke(hospital: Hospital, grant: Object) -> float:
    given = samples.grant(samples.manifest("heart"), now=grant["spec"]["notBefore"] + 1)
    ended = samples.revocation(given, now=time.time())
    patch = {"spec": {"revocation": {"time": ended.time, "signature": ended.signature}}}
    name = grant["metadata"]["name"]
    kubectl.run("-n", hospital.home, "patch", "grants.koinon.dev", name, "--type=merge", "-p", json.dumps(patch))
    return time.monotonic()


def test_everything_is_made_in_order_and_the_grant_becomes_ready(
    hospital: Hospital, operator: Running, rays: Rays
) -> None:
    began = time.monotonic()
    grant = hospital.grant()
    found = seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
    print(f"ready after {time.monotonic() - began:.2f} s")
    project = short(grant["spec"]["manifest"])
    kube, work = hospital.kube, hospital.work
    made = [
        kube.get(kind, work, name)["metadata"]
        for kind, name in (
            (NETWORK_POLICY, "koinon-deny-all"),
            (RESOURCE_QUOTA, "koinon"),
            (LIMIT_RANGE, "koinon"),
            (SERVICE_ACCOUNT, "koinon-ray"),
            (NETWORK_POLICY, cluster(project)),
            (NETWORK_POLICY, head(project)),
            (SERVICE, head(project)),
            (RAY_CLUSTER, cluster(project)),
        )
    ]
    times = [meta["creationTimestamp"] for meta in made]
    assert times == sorted(times)
    assert int(made[0]["resourceVersion"]) < int(made[-1]["resourceVersion"])
    assert found["status"]["project"] == "heart"
    assert found["status"]["cluster"] == cluster(project)
    assert seeing.condition(found, "EgressDenied")["reason"] == "Proven"
    told = kube.get(CONFIG_MAP, hospital.home, "koinon-consents")["data"]
    assert list(told) == [f"grants.{grant['spec']['manifest']}.json"]


@pytest.mark.usefixtures("operator", "rays")
def test_revocation_leaves_nothing_and_says_how_long_it_took(hospital: Hospital) -> None:
    grant = hospital.grant()
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
    assert seeing.left(hospital.kube, hospital.work, grant["spec"]["manifest"])
    began = revoke(hospital, grant)
    found = seeing.wait(lambda: hospital.seen(grant), "Revoked", "True")
    print(f"nothing left {time.monotonic() - began:.2f} s after the revocation; {found['status']['removal']}")
    assert seeing.left(hospital.kube, hospital.work, grant["spec"]["manifest"]) == []
    assert seeing.condition(found, "Ready")["status"] == "False"
    kubectl.until(
        lambda: (
            set(hospital.kube.get(CONFIG_MAP, hospital.home, "koinon-consents")["data"])
            == {f"revocations.{grant['spec']['manifest']}.json"}
        ),
        "the agent is told of the revocation",
    )


@pytest.mark.usefixtures("operator", "rays")
def test_a_revoked_grant_that_is_deleted_and_applied_again_stays_revoked(hospital: Hospital) -> None:
    grant = hospital.grant()
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
    revoke(hospital, grant)
    seeing.wait(lambda: hospital.seen(grant), "Revoked", "True")
    kubectl.until(
        lambda: "revocations" in str(hospital.kube.get(CONFIG_MAP, hospital.home, "koinon-consents").get("data")),
        "told",
    )
    hospital.kube.delete(GRANT, hospital.home, grant["metadata"]["name"])
    meta = {"name": grant["metadata"]["name"], "namespace": hospital.home}
    again = {**grant, "metadata": meta}
    again.pop("status", None)
    hospital.kube.create(GRANT, again)
    seeing.wait(lambda: hospital.seen(grant), "Revoked", "True")
    assert seeing.left(hospital.kube, hospital.work, grant["spec"]["manifest"]) == []
    newer = samples.grant_resource(samples.manifest("heart"), home=hospital.home, now=time.time() + 2)
    current = hospital.seen(grant)
    hospital.kube.replace(GRANT, {**current, "spec": {**newer["spec"]}})
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")


@pytest.mark.usefixtures("operator", "rays")
def test_expiry_leaves_nothing(hospital: Hospital) -> None:
    grant = hospital.grant(days=4 / 86_400)
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
    found = seeing.wait(lambda: hospital.seen(grant), "Expired", "True")
    assert time.time() >= grant["spec"]["expires"]
    print(f"gone {time.time() - grant['spec']['expires']:.2f} s after its time; {found['status']['removal']}")
    assert seeing.left(hospital.kube, hospital.work, grant["spec"]["manifest"]) == []


@pytest.mark.usefixtures("operator", "rays")
def test_a_deleted_grant_leaves_nothing(hospital: Hospital) -> None:
    grant = hospital.grant()
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
    hospital.kube.delete(GRANT, hospital.home, grant["metadata"]["name"])
    kubectl.until(lambda: not seeing.left(hospital.kube, hospital.work, grant["spec"]["manifest"]), "nothing is left")


def test_an_operator_that_was_down_catches_up(hospital: Hospital, rays: Rays, tmp_path: Path) -> None:
    with running({hospital.home: hospital.work}, tmp_path / "log") as operator:
        kept, gone, ended = (hospital.grant(name) for name in ("kept", "gone", "ended"))
        for grant in (kept, gone, ended):
            seeing.wait(partial(hospital.seen, grant), "Ready", "True")
        operator.kill()
        project = short(kept["spec"]["manifest"])
        hospital.kube.delete(RAY_CLUSTER, hospital.work, cluster(project))
        hospital.kube.delete(NETWORK_POLICY, hospital.work, "koinon-deny-all")
        hospital.kube.delete(GRANT, hospital.home, gone["metadata"]["name"])
        manifest = samples.manifest("ended")
        over = samples.revocation(samples.grant(manifest), now=time.time())
        current = hospital.seen(ended)
        current["spec"]["revocation"] = {"time": over.time, "signature": over.signature}
        hospital.kube.replace(GRANT, current)
        new = hospital.grant("new")
        began = time.monotonic()
        operator.again()
        seeing.wait(lambda: hospital.seen(ended), "Revoked", "True")
        seeing.wait(lambda: hospital.seen(new), "Ready", "True")
        kubectl.until(
            lambda: not seeing.left(hospital.kube, hospital.work, gone["spec"]["manifest"]), "nothing is left"
        )
        hospital.kube.get(NETWORK_POLICY, hospital.work, "koinon-deny-all")
        kubectl.until(lambda: hospital.kube.get(RAY_CLUSTER, hospital.work, cluster(project)), "the cluster is back")
        print(f"caught up after {time.monotonic() - began:.2f} s")
        assert operator.stop() == 0


@pytest.mark.usefixtures("operator", "rays")
def test_without_its_site_nothing_of_a_hospital_stays(hospital: Hospital) -> None:
    grant = hospital.grant()
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
    hospital.kube.delete(SITE, hospital.home, "lyon")
    seeing.wait(lambda: hospital.seen(grant), "Verified", "False", "NoSite")

    def nothing() -> bool:
        kinds = (NETWORK_POLICY, RESOURCE_QUOTA, LIMIT_RANGE, SECRET, SERVICE, RAY_CLUSTER, POD)
        names = [obj["metadata"]["name"] for kind in kinds for obj in hospital.kube.list(kind, hospital.work)[0]]
        return not names

    kubectl.until(nothing, "the work namespace is empty")
    for kind, name in ((SECRET, "koinon-ray"), (CONFIG_MAP, "koinon-consents")):
        with pytest.raises(NotFound):
            hospital.kube.get(kind, hospital.home, name)


@pytest.mark.usefixtures("rays")
@pytest.mark.parametrize("alive", [True, False])
def test_clean_leaves_nothing_whether_the_operator_runs_or_not(hospital: Hospital, tmp_path: Path, alive: bool) -> None:
    with running({hospital.home: hospital.work}, tmp_path / "log") as operator:
        grant = hospital.grant()
        seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
        if not alive:
            operator.kill()
        settings = Settings({hospital.home: hospital.work})
        began = time.monotonic()
        clean(settings, seconds=30)
        print(f"clean after {time.monotonic() - began:.1f} s")
        kinds = (NETWORK_POLICY, RESOURCE_QUOTA, LIMIT_RANGE, SECRET, SERVICE, RAY_CLUSTER, POD)
        assert [obj["metadata"]["name"] for kind in kinds for obj in hospital.kube.list(kind, hospital.work)[0]] == []
        assert not hospital.kube.list(SITE, hospital.home)[0]
        assert hospital.seen(grant)
