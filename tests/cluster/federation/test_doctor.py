"""Faults planted by hand in a hospital that works: `kubectl koinon doctor` names each, and nothing once mended."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from koinon.client.projects import Project
from tests.cluster import kubectl
from tests.cluster.charts import releases
from tests.cluster.charts.certificates import Authority
from tests.cluster.federation.conftest import OPTIONS
from tests.cluster.federation.league import SITES, League

SITE = SITES[2]
Plant = Callable[[League, Project], Iterator[None]]
FAULTS: dict[str, tuple[str, Plant]] = {}


def found(home: str) -> list[str]:
    """What doctor wants repaired in a hospital's namespace."""
    command = ["kubectl", "koinon", "doctor", "-n", home, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    findings = json.loads(done.stdout)
    bad = [f"{one['what']}: {one['said']} {one['todo']}" for one in findings if one["state"] == "bad"]
    assert done.returncode == (1 if bad else 0), done.stderr
    return bad


def fault(expected: str) -> Callable[[Plant], Plant]:
    """`plant` does the harm, and undoes it when it goes on."""

    def register(plant: Plant) -> Plant:
        FAULTS[plant.__name__] = (expected, plant)
        return plant

    return register


def here(federation: League, *words: str, stdin: str | None = None) -> str:
    return kubectl.run("-n", federation.home(SITE), *words, stdin=stdin, seconds=120)


def there(federation: League, *words: str, stdin: str | None = None) -> str:
    return kubectl.run("-n", federation.work(SITE), *words, stdin=stdin, seconds=120)


@contextmanager
def paused(federation: League) -> Iterator[None]:
    """Without the operator, which would undo it."""
    here(federation, "scale", "deployment/koinon-operator", "--replicas=0")
    here(federation, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=operator", "--timeout=90s")
    yield
    here(federation, "scale", "deployment/koinon-operator", "--replicas=1")


@contextmanager
def changed(federation: League, kind: str, name: str, patch: object, *, kept: str) -> Iterator[None]:
    """The field `kept` of the object's spec is what it was at the end."""
    before = kubectl.required(kind, name, federation.home(SITE))["spec"].get(kept)
    here(federation, "patch", kind, name, "--type=merge", "-p", json.dumps({"spec": patch}))
    yield
    here(federation, "patch", kind, name, "--type=merge", "-p", json.dumps({"spec": {kept: before}}))


@fault(r"operator: it is scaled to zero.*--replicas=1")
def operator_scaled_to_zero(federation: League, project: Project) -> Iterator[None]:
    with paused(federation):
        yield


@fault("walls: nothing denies traffic")
def walls_taken_down(federation: League, project: Project) -> Iterator[None]:
    with paused(federation):
        there(federation, "delete", "networkpolicy", "--all")
        yield


@fault("agent's keys: there is no Secret koinon-agent")
def keys_deleted(federation: League, project: Project) -> Iterator[None]:
    secret = kubectl.required("secret", "koinon-agent", federation.home(SITE))
    here(federation, "delete", "secret", "koinon-agent")
    yield
    metadata = {"name": "koinon-agent", "namespace": federation.home(SITE)}
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": secret["data"]})


@fault("agent: there is no pod of it")
def agent_scaled_to_zero(federation: League, project: Project) -> Iterator[None]:
    here(federation, "scale", "statefulset/koinon-agent", "--replicas=0")
    yield
    here(federation, "scale", "statefulset/koinon-agent", "--replicas=1")


@fault("agent: pod koinon-agent-0: the image localhost/nobody:1 cannot be pulled.*registry")
def image_that_is_not_there(federation: League, project: Project) -> Iterator[None]:
    here(federation, "set", "image", "statefulset/koinon-agent", "agent=localhost/nobody:1")
    yield
    here(federation, "rollout", "undo", "statefulset/koinon-agent")
    here(federation, "delete", "pod", "koinon-agent-0", "--grace-period=1")  # a StatefulSet waits for a broken one


@fault(r"hub: https://.*certificate.*hub\.ca")
def another_authority(federation: League, project: Project) -> Iterator[None]:
    before = kubectl.required("configmap", "hub-ca", federation.home(SITE))["data"]["ca.crt"]
    for text in (Authority("another").certificate, before):
        patch = json.dumps({"data": {"ca.crt": text}})
        here(federation, "patch", "configmap", "hub-ca", "--type=merge", "-p", patch)
        here(federation, "delete", "pod", "koinon-agent-0", "--grace-period=1")
        if text != before:
            yield


@fault("data set genomes: there is no claim genomes")
def data_set_without_claim(federation: League, project: Project) -> Iterator[None]:
    site = kubectl.required("sites.koinon.dev", SITE, federation.home(SITE))["spec"]
    more = [*site["datasets"], {"name": "genomes", "claimName": "genomes", "path": "g.csv"}]
    with changed(federation, "sites.koinon.dev", SITE, {"datasets": more}, kept="datasets"):
        yield


@fault("grant .*BadSignature")
def grant_with_another_date(federation: League, project: Project) -> Iterator[None]:
    """Nobody but the root key makes a grant last longer."""
    spec = federation.grant_of(project, SITE)["spec"]
    spec["expires"] += 86_400
    metadata = {"name": "longer", "namespace": federation.home(SITE)}
    kubectl.apply({"apiVersion": "koinon.dev/v1alpha1", "kind": "Grant", "metadata": metadata, "spec": spec})
    yield
    here(federation, "delete", "grants.koinon.dev", "longer")


@fault("grant large-.*OverQuota: It needs 500 cores.*Grant less")
def more_than_the_hospital_gives(federation: League, project: Project) -> Iterator[None]:
    large = federation.hub.create_project("large", sites=SITES, **OPTIONS)
    federation.wait_for_manifest(large, SITE)
    federation.grant(large, SITE, "--cpus", "500", "--memory", "2", "--disk", "2")
    yield
    here(federation, "delete", "grants.koinon.dev", f"large-{large.hash[:8]}", "--timeout=90s")


@fault("grant heart-.*ForeignPolicy: .* convenient .* lets traffic through")
def policy_that_opens_names(federation: League, project: Project) -> Iterator[None]:
    rule = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}
    metadata = {"name": "convenient", "namespace": federation.work(SITE)}
    kubectl.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": rule})
    yield
    there(federation, "delete", "networkpolicy", "convenient", "--ignore-not-found")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", FAULTS)
def test_doctor_finds(federation: League, project: Project, name: str) -> None:
    expected, plant = FAULTS[name]
    home = federation.home(SITE)
    kubectl.until(lambda: found(home) == [], "the hospital is well before", seconds=120)
    steps = plant(federation, project)
    next(steps)
    try:
        kubectl.until(
            lambda: any(re.search(expected, line) for line in found(home)), f"doctor says {expected}", seconds=150
        )
        print(f"{name}: {next(line for line in found(home) if re.search(expected, line))}")
    finally:
        next(steps, None)


@pytest.mark.timeout(300)
def test_doctor_before_the_site_is_declared(
    federation: League, new_namespace: Callable[[str], str], tmp_path: Path
) -> None:
    """Helm waits in vain for an agent that does not reach its hub, and so never declares the Site."""
    home, work = new_namespace("nowhere"), new_namespace("nowhere-work")
    subprocess.run(["koinon", "site", "keys", str(tmp_path / "lyon"), "--name", "lyon"], check=True, timeout=60)
    agent = tmp_path / "lyon" / "agent"
    kubectl.run("-n", home, "create", "secret", "generic", "koinon-agent", f"--from-file={agent}")
    root = {"root": (agent / "root.pub").read_text().strip()}
    values = releases.site(work, site=root, hub={"url": "https://192.0.2.7"}, crds={"install": False})
    try:
        with pytest.raises(kubectl.Failed):
            releases.install("site", "koinon-site", home, values, "--wait", "--timeout=30s")
        assert kubectl.find("sites.koinon.dev", home) == []
        wanted = r"hub: https://192\.0\.2\.7: .*open to 192\.0\.2\.7/32.*\nSite: it is not declared yet"
        kubectl.until(lambda: re.search(wanted, "\n".join(found(home))), f"doctor says {wanted}", seconds=60)
    finally:
        kubectl.helm("uninstall", "site", "-n", home, "--ignore-not-found", "--no-hooks")
