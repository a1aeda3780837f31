"""The chart of a hospital on a cluster: what an installation makes, what it lets nobody do, and what stays of it."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from koinon_operator import names
from tests.cluster import kubectl, kuberay, pods
from tests.cluster.charts import releases
from tests.cluster.rendered.render import Object, merged

pytestmark = pytest.mark.usefixtures("images")


@dataclass(frozen=True)
class Hospital:
    home: str
    work: str
    values: Object

    def install(self, **more: Any) -> str:
        return releases.install("site", "koinon-site", self.home, merged(self.values, more))

    def site(self) -> Object:
        return kubectl.required("sites.koinon.dev", "lyon", self.home)


def keys(folder: Path, home: str) -> str:
    """Makes the hospital's keys and their Secret, as its IT does; returns the root's public half."""
    command = ["koinon", "site", "keys", str(folder / "lyon"), "--name", "lyon"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    kubectl.run("-n", home, "create", "secret", "generic", "koinon-agent", f"--from-file={folder / 'lyon' / 'agent'}")
    return (folder / "lyon" / "agent" / "root.pub").read_text().strip()


@pytest.fixture
def hospital(new_namespace: Callable[[str], str], tmp_path: Path) -> Iterator[Hospital]:
    """Not installed yet; if it still is at the end, it is uninstalled."""
    home, work = new_namespace("lyon"), new_namespace("lyon-work")
    yield Hospital(home, work, releases.site(work, site={"root": keys(tmp_path, home)}))
    kubectl.helm("uninstall", "site", "-n", home, "--ignore-not-found", "--no-hooks")


@pytest.mark.timeout(900)
def test_the_first_hospital_from_install_to_uninstall(no_definitions: None, hospital: Hospital) -> None:
    notes = hospital.install()
    assert "kubectl koinon doctor" in notes
    assert "PersistentVolumeClaim" in notes  # the data is not there yet, and it says so
    assert "Secret" not in notes.partition("Verify")[0]  # the keys are
    kubectl.run("-n", hospital.home, "rollout", "status", "deployment/koinon-operator", "--timeout=90s", seconds=100)
    site = hospital.site()
    assert site["spec"]["root"] == hospital.values["site"]["root"]
    [owner] = site["metadata"]["ownerReferences"]
    config = kubectl.required("configmap", "koinon-site", hospital.home)["metadata"]
    assert (owner["kind"], owner["uid"]) == ("ConfigMap", config["uid"])
    kubectl.until(lambda: hospital.site().get("status", {}).get("conditions"), "the operator looked at the Site", 60)
    kubectl.until(
        lambda: kubectl.get("networkpolicy", names.DENY_ALL, hospital.work), "the operator closed the work namespace"
    )

    hospital.install(quota={"pods": 7})
    assert hospital.site()["spec"]["quota"]["pods"] == 7
    assert hospital.site()["metadata"]["uid"] == site["metadata"]["uid"]

    releases.uninstall("site", hospital.home)
    releases.require_left(hospital.home, {"secret/koinon-agent", "persistentvolumeclaim/data-koinon-agent-0"})
    releases.require_left(hospital.work, set())
    kept = kubectl.run("get", "customresourcedefinition", "-o", "name").split()
    kept += kubectl.run("get", "clusterrole", "-o", "name").split()
    assert {f"clusterrole.rbac.authorization.k8s.io/koinon-{name}" for name in ("view", "admin")} <= set(kept)
    assert {f"customresourcedefinition.apiextensions.k8s.io/{kind}.koinon.dev" for kind in ("sites", "grants")} <= set(
        kept
    )


@pytest.mark.timeout(600)
def test_what_can_never_change_is_refused_before_anything_does(definitions: None, hospital: Hospital) -> None:
    without = {"crds": {"install": False}}
    hospital.install(**without)
    with pytest.raises(kubectl.Failed, match=r"site\.root differs from that of the Site"):
        hospital.install(**without, site={"root": "cd" * 32})
    with pytest.raises(kubectl.Failed, match="can never be changed"):
        hospital.install(**without, workNamespace={"name": "elsewhere", "create": True})
    # What only the API server knows to be wrong comes back through the job that declares the Site.
    with pytest.raises(kubectl.Failed, match="This is no network"):
        hospital.install(**without, hub={"cidrs": ["1:2:3/64"]}, networkPolicy={"enabled": False})
    assert hospital.site()["spec"]["hub"]["cidrs"] == ["192.0.2.7/32"]


@pytest.mark.timeout(600)
def test_an_upgrade_mends_a_hospital_that_never_reached_its_hub(definitions: None, hospital: Hospital) -> None:
    def agent() -> str:
        found = kubectl.get("pod", "koinon-agent-0", hospital.home) or {}
        return str(found.get("metadata", {}).get("uid", ""))

    without = {"crds": {"install": False}}
    hospital.install(**without, hub={"url": "https://wrong.example.org"})
    wrong = kubectl.until(agent, "there is an agent", 60)
    hospital.install(**without)
    kubectl.until(lambda: agent() not in ("", wrong), "the agent is another one", 90)


MAY = {
    "home": [("list", "sites.koinon.dev"), ("watch", "grants.koinon.dev"), ("create", "events")],
    "work": [("create", "rayclusters.ray.io"), ("delete", "pods"), ("create", "networkpolicies.networking.k8s.io")],
}
MAY_NOT = {
    "home": [
        ("get", "secrets"), ("list", "secrets"), ("get", "secrets/koinon-agent"), ("update", "sites.koinon.dev"),
        ("create", "grants.koinon.dev"), ("update", "grants.koinon.dev"), ("create", "pods"), ("create", "pods/exec"),
        ("delete", "networkpolicies.networking.k8s.io"), ("create", "rayclusters.ray.io"), ("get", "pods/log"),
        ("update", "roles.rbac.authorization.k8s.io"), ("patch", "pods/koinon-operator-0"),
    ],
    "work": [
        ("get", "secrets"), ("list", "secrets"), ("create", "pods"), ("create", "pods/exec"), ("create", "roles"),
        ("create", "rolebindings"), ("get", "configmaps"), ("patch", "persistentvolumeclaims"),
    ],
    "default": [("list", "pods"), ("get", "secrets"), ("list", "sites.koinon.dev"), ("create", "rayclusters.ray.io")],
}  # fmt: skip


@pytest.mark.timeout(600)
def test_rights_and_walls(definitions: None, hospital: Hospital) -> None:
    hospital.install(crds={"install": False})
    places = {"home": hospital.home, "work": hospital.work, "default": "default"}
    operator = f"{hospital.home}:koinon-operator"
    assert [
        (w, v, k) for w, rights in MAY.items() for v, k in rights if not kubectl.may(operator, v, k, places[w])
    ] == []
    assert [
        (w, v, k) for w, rights in MAY_NOT.items() for v, k in rights if kubectl.may(operator, v, k, places[w])
    ] == []
    assert kubectl.may(operator, "get", "secrets/koinon-ray", hospital.home)
    for verb, kind in (("list", "namespaces"), ("get", "nodes"), ("list", "customresourcedefinitions")):
        assert not kubectl.may(operator, verb, kind)
    declaring = f"{hospital.home}:koinon-declare"
    assert kubectl.may(declaring, "update", "sites.koinon.dev/lyon", hospital.home)
    assert not kubectl.may(declaring, "update", "sites.koinon.dev/other", hospital.home)
    assert not kubectl.may(declaring, "delete", "sites.koinon.dev/lyon", hospital.home)
    assert kubectl.may(kuberay.account(), "create", "pods", hospital.work)
    assert not kubectl.may(kuberay.account(), "get", "pods", hospital.home)
    assert not kubectl.may(kuberay.account(), "get", "secrets", hospital.home)

    [rule] = kubectl.required("networkpolicy", "koinon-hook", hospital.home)["spec"]["egress"]
    service = kubectl.required("service", "kubernetes")["spec"]["clusterIP"]
    assert {"ipBlock": {"cidr": f"{service}/32"}} in rule["to"]  # looked up, since the values do not say
    assert len(rule["to"]) > 1

    kubectl.run("-n", hospital.home, "wait", "pod/koinon-agent-0", "--for=jsonpath={.status.podIP}", "--timeout=60s")
    agent = kubectl.required("pod", "koinon-agent-0", hospital.home)["status"]["podIP"]
    as_operator = {"app.kubernetes.io/name": "koinon-site", "app.kubernetes.io/instance": "site"}
    friend = pods.pod(hospital.home, "friend")
    friend["metadata"]["labels"] |= as_operator | {"app.kubernetes.io/component": "operator"}
    kubectl.apply(friend, pods.pod(hospital.home, "stranger"), pods.pod(hospital.work, "stranger"))
    for namespace, pod in ((hospital.home, "friend"), (hospital.home, "stranger"), (hospital.work, "stranger")):
        kubectl.wait(namespace, f"pod/{pod}", "condition=Ready")

    def reaches(namespace: str, pod: str, address: str, port: int) -> bool:
        try:
            kubectl.execute(namespace, pod, "timeout", "3", "nc", address, str(port), "-e", "true")
        except kubectl.Failed:
            return False
        return True

    kubectl.until(lambda: reaches(hospital.home, "friend", agent, 8472), "the operator reaches the agent", 60)
    for namespace in (hospital.home, hospital.work):
        for address, port in ((agent, 8472), (service, 443)):
            assert not reaches(namespace, "stranger", address, port)


@pytest.mark.timeout(300)
def test_a_cluster_that_lacks_something_is_told(definitions: None, new_namespace: Callable[[str], str]) -> None:
    home = new_namespace("lyon")
    for wrong, said in (
        ({"kuberay": {"serviceAccount": {"name": "nobody"}}}, "There is no service account nobody"),
        ({"kuberay": {"clusterRole": "nothing"}}, "There is no ClusterRole nothing"),
        ({"workNamespace": {"name": "nowhere"}}, "There is no namespace nowhere"),
    ):
        with pytest.raises(kubectl.Failed, match=said):
            releases.install(
                "site", "koinon-site", home, merged(releases.site(home + "-w"), {"crds": {"install": False}, **wrong})
            )
    releases.require_left(home, set())


def test_without_definitions_a_second_hospital_is_told(
    no_definitions: None, new_namespace: Callable[[str], str]
) -> None:
    home, work = new_namespace("nice"), new_namespace("nice-work")
    with pytest.raises(kubectl.Failed, match=r"crds\.install must be true for the first hospital"):
        releases.install("site", "koinon-site", home, releases.site(work, crds={"install": False}))


@pytest.mark.timeout(600)
def test_a_work_namespace_that_the_chart_made_stays_closed(
    definitions: None, new_namespace: Callable[[str], str], tmp_path: Path
) -> None:
    home = new_namespace("lille")
    work = f"{home}-work"
    values = releases.site(
        work, site={"root": keys(tmp_path, home)}, workNamespace={"create": True}, crds={"install": False}
    )
    releases.install("site", "koinon-site", home, values)
    try:
        releases.uninstall("site", home)
        labels = kubectl.required("namespace", work)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        releases.require_left(work, {"networkpolicy.networking.k8s.io/koinon-site-deny-all"})
        releases.install("site", "koinon-site", home, values)  # it is taken over again
    finally:
        kubectl.helm("uninstall", "site", "-n", home, "--ignore-not-found", "--no-hooks")
        kubectl.run("delete", "namespace", work, "--ignore-not-found", "--wait=false")
