"""Every command of docs/kubernetes, in the order that people read them in.

A hub, three hospitals, a run, an upgrade in the middle of it, a revocation, and the end.
"""

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from koinon.client.http import Connection
from koinon.client.hub import Hub
from koinon.client.projects import Project
from koinon.data import heart
from tests.cluster import kubectl, kuberay, pods
from tests.cluster.charts import releases
from tests.cluster.conftest import Cluster, lacking
from tests.cluster.federation import relay
from tests.cluster.federation.league import CHARTS, OUTSIDE, SITES, SMALL, wait_for_manifest
from tests.cluster.guides import reading
from tests.cluster.oci import builder

ROOT = CHARTS.parent
HUB = (
    "--set gateway.resources.requests.cpu=50m --set minio.image.repository=minio --set-string minio.image.tag=1 "
    "--set postgresql.image.repository=postgresql --set-string postgresql.image.tag=1"
)
KINDS = ("sites.koinon.dev", "grants.koinon.dev")
NEXT = "next"  # the same images under the tag of a version that comes after


@dataclass
class Walk:
    """What the walk through the guides has come to. `ran` are the blocks that ran, by guide."""

    folder: Path
    prefix: str
    charts: Path
    variables: dict[str, str] = field(default_factory=dict)
    ran: dict[str, set[int]] = field(default_factory=dict)

    def home(self, site: str) -> str:
        return f"{self.prefix}-{site}"

    def run(self, guide: str, *numbers: int, site: str = "", **variables: str) -> str:
        """What these blocks of a guide print, for a hospital if one is named."""
        told = self.variables | ({"SITE": self.home(site)} if site else {}) | variables
        found = reading.blocks(guide)
        self.ran.setdefault(guide, set()).update(numbers)
        return "".join(reading.run(found[number], told, self.folder) for number in numbers)


def previous(folder: Path) -> Path:
    """The charts as they were before they last changed; those of today if no other is known."""
    log = ["git", "log", "-2", "--format=%H", "--", "charts"]
    commits = subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    print("charts to upgrade from:", commits[1][:12] if len(commits) == 2 else "those of today")
    if len(commits) < 2:
        return CHARTS
    archive = subprocess.run(["git", "archive", commits[1], "charts"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder / "charts"


@pytest.fixture(scope="module")
def walk(cluster: Cluster, images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    if not cluster.node:
        pytest.skip("KUBECONFIG names a cluster of the user's own; the guides' names may be taken there")
    if kubectl.get("namespace", "koinon"):
        lacking("the namespace koinon is there already")
    folder = tmp_path_factory.mktemp("guides")
    found = Walk(folder, f"guide-{secrets.token_hex(2)}", previous(folder))
    found.variables = {
        "REGISTRY": pods.REGISTRY, "TAG": "test", "CHARTS": str(found.charts), "HUB_HOST": OUTSIDE, "HUB_OPTIONS": HUB,
        "HUB_CIDR": f"{OUTSIDE}/32", "RESEARCHER": "ada", "GRANT_OPTIONS": "--yes --memory 2 --disk 2",
        "REVOKE_OPTIONS": "--yes",
    }  # fmt: skip
    yield found
    for site in SITES:
        with contextlib.suppress(kubectl.Failed, subprocess.TimeoutExpired):
            kubectl.helm("uninstall", "site", "-n", found.home(site), "--ignore-not-found", "--no-hooks")
    works = [f"{found.home(site)}-work" for site in SITES]
    kuberay.unwatch(*works)
    spaces = ["koinon", *map(found.home, SITES), *works]
    kubectl.run("delete", "namespace", *spaces, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def hub(walk: Walk) -> Iterator[Hub]:
    walk.run("hospital.md", 0, CHARTS=str(CHARTS))  # the charts to upgrade from may lack the file
    walk.run("hub.md", 0, 1)
    service = kubectl.required("service", "hub-koinon-hub", "koinon")
    target = (service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"])
    with relay.relay(OUTSIDE, target) as port:
        walk.variables["HUB_URL"] = f"https://{OUTSIDE}:{port}"
        walk.run("hub.md", 3)
        key = walk.folder / "researcher.key"
        subprocess.run(["koinon", "key", "new", "--out", str(key)], check=True, capture_output=True)
        token = (walk.folder / "ada.token").read_text().strip()
        ca = walk.folder / "hub-ca.crt"
        with Hub(Connection(walk.variables["HUB_URL"], token, ca=ca), identity=key) as found:
            yield found


@pytest.fixture(scope="module")
def hospitals(walk: Walk, hub: Hub) -> None:
    """The first brings the definitions if they are not there, as the guide for several hospitals says."""

    def install(site: str, first: bool = False) -> None:
        options = " ".join([*SMALL, "--set", f"crds.install={str(first).lower()}"])
        walk.run("hub.md", 2, site=site)
        printed = walk.run("hospital.md", 1, 2, site=site, SITE_OPTIONS=options)
        shown = kubectl.required("sites.koinon.dev", walk.home(site), walk.home(site))
        assert shown["status"]["fingerprint"] in printed
        written = walk.run("hospital.md", 3, site=site, DATA=str(heart.HOSPITALS[site])).splitlines()
        digests = {line.split()[0] for line in written if len(line.split()[0]) == 64}
        assert len(digests) == 1, written

    install(SITES[0], first=kubectl.get("customresourcedefinition", "grants.koinon.dev") is None)
    with ThreadPoolExecutor(len(SITES)) as threads:
        list(threads.map(install, SITES[1:]))
    kuberay.watch(*(f"{walk.home(site)}-work" for site in SITES))


@pytest.fixture(scope="module")
def project(walk: Walk, hub: Hub, hospitals: None) -> Project:
    """Granted by all, the first of them through a file as GitOps does."""
    created = hub.create_project(
        "heart", sites=[walk.home(site) for site in SITES], contract=heart.CONTRACT,
        purpose="Predict heart disease from 13 features.", deadlines={"train": 900, "phase": 300},
    )  # fmt: skip
    walk.variables["PROJECT"] = created.hash
    for number, site in enumerate(SITES):
        wait_for_manifest(walk.home(site), created.hash)
        walk.run("hospital.md", 6 if number == 0 else 5, site=site)
    return created


@pytest.mark.timeout(900)
def test_a_hospital_checks_what_it_installed(walk: Walk, hospitals: None) -> None:
    printed = walk.run("hospital.md", 4, site=SITES[0])
    print(printed)
    assert "Succeeded" in printed
    assert "BAD" not in printed


@pytest.mark.timeout(900)
def test_an_upgrade_with_a_run_in_progress(walk: Walk, project: Project) -> None:
    """Hub and hospitals, charts and images, Ray's too: the run ends as if nothing had been."""
    for target in builder.TARGETS:
        name = builder.name(target)
        builder.run("ctr", "images", "tag", "--force", name, name.replace(":test", f":{NEXT}"))
    run = project.submit(rounds=12, seed=3, local_steps=20_000)
    steps = run.watch(900)
    next(steps), next(steps)
    walk.variables |= {"TAG": NEXT, "CHARTS": str(CHARTS)}
    began = time.time()
    walk.run("upgrade.md", 0)
    walk.run("upgrade.md", 1, site=SITES[0])  # it has the custom resources
    with ThreadPoolExecutor(len(SITES)) as threads:
        list(threads.map(lambda site: walk.run("upgrade.md", 1, site=site), SITES[1:]))
    print(f"upgraded in {time.time() - began:.1f} s")
    later = sum(step.opened > began for step in steps)
    row = run.refresh().row
    assert row["state"] == "completed"
    assert row["started"] < began < row["finished"]
    print(f"{later} of its rounds began after the upgrade did")
    found = [pod for site in SITES for space in ("", "-work") for pod in kubectl.find("pods", walk.home(site) + space)]
    images = {container["image"] for pod in found for container in pod["spec"]["containers"]}
    assert {image.rpartition(":")[2] for image in images} == {NEXT}, images


@pytest.mark.timeout(600)
def test_operations(walk: Walk, project: Project) -> None:
    for number in range(len(reading.blocks("operations.md"))):
        print(walk.run("operations.md", number, site=SITES[1]))
    for namespace, name, size in ((walk.home(SITES[1]), "koinon-agent", "20Gi"), ("koinon", "hub-koinon-hub", "40Gi")):
        [template] = kubectl.required("statefulset", name, namespace)["spec"]["volumeClaimTemplates"]
        claim = kubectl.required("persistentvolumeclaim", f"data-{name}-0", namespace)
        assert [found["spec"]["resources"]["requests"]["storage"] for found in (template, claim)] == [size, size]


@pytest.mark.timeout(600)
def test_a_revocation_returns_when_the_last_pod_is_gone(walk: Walk, project: Project) -> None:
    print(walk.run("hospital.md", 7, site=SITES[2]))
    assert kubectl.find("pods", f"{walk.home(SITES[2])}-work") == []


@pytest.mark.timeout(900)
def test_uninstalling_leaves_what_the_guide_says(walk: Walk, project: Project) -> None:
    for site in SITES:
        walk.run("uninstall.md", 0, site=site)
        if site == SITES[0]:
            walk.run("uninstall.md", 1, site=SITES[1])
            for kind in KINDS:
                notes = kubectl.required("customresourcedefinition", kind)["metadata"]["annotations"]
                assert notes["meta.helm.sh/release-namespace"] == walk.home(SITES[1])
        grant = f"grant.koinon.dev/{project.name}-{project.hash[:8]}"
        home = {"secret/koinon-agent", "secret/koinon-invitation", "configmap/hub-ca", grant}
        releases.require_left(walk.home(site), home | {"persistentvolumeclaim/data-koinon-agent-0"})
        work = {"persistentvolumeclaim/heart", "networkpolicy.networking.k8s.io/koinon-site-deny-all"}
        releases.require_left(f"{walk.home(site)}-work", work)
    kuberay.unwatch(*(f"{walk.home(site)}-work" for site in SITES))
    for site in SITES:
        walk.run("uninstall.md", 2, site=site)
    kubectl.until(
        lambda: not kubectl.find("sites.koinon.dev"), "there is no other hospital in this cluster", seconds=90
    )
    walk.run("uninstall.md", 3)
    assert [kubectl.get("customresourcedefinition", kind) for kind in KINDS] == [None, None]
    walk.run("uninstall.md", 4)
    parts = ("hub-koinon-hub", "hub-koinon-hub-postgresql", "hub-koinon-hub-minio")
    secret = {f"secret/hub-koinon-hub-{part}" for part in ("tls", "postgresql", "minio")}
    releases.require_left("koinon", secret | {f"persistentvolumeclaim/data-{part}-0" for part in parts})
    walk.run("uninstall.md", 5)
    assert kubectl.get("namespace", "koinon") is None


@pytest.mark.timeout(600)
def test_the_bundle_for_who_has_no_internet(walk: Walk, tmp_path: Path) -> None:
    archives = [tmp_path / f"{target}.tar" for target in builder.TARGETS]
    for target, archive in zip(builder.TARGETS, archives, strict=True):
        builder.layout().thin(builder.name(target), set(), archive)
    told = {**walk.variables, "IMAGES": " ".join(map(str, archives)), "BUNDLE": str(tmp_path / "koinon.tar")}
    pack, check, _ = reading.blocks("air-gapped.md")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    reading.run(pack, told, ROOT)
    print(f"bundle: {os.path.getsize(told['BUNDLE']) / 1e6:.0f} MB")
    for archive in archives:
        archive.unlink()
    printed = reading.run(check, told, unpacked)
    assert printed.count(": OK") >= len(archives)
    walk.ran["air-gapped.md"] = {0, 1}


def test_the_password_of_a_registry(walk: Walk, new_namespace: Callable[[str], str]) -> None:
    (walk.folder / "config.json").write_text('{"auths": {}}')
    for name in ("lyon", "lyon-work"):
        namespace = new_namespace(name)
        walk.run("air-gapped.md", 2, NAMESPACE=namespace, DOCKER_CONFIG_FILE="config.json")
        secret = kubectl.required("secret", "koinon-registry", namespace)
        assert secret["type"] == "kubernetes.io/dockerconfigjson"


def test_every_command_ran(walk: Walk) -> None:
    """The last one: no block of any guide was left out."""
    wanted = {guide.name: set(range(len(reading.blocks(guide.name)))) for guide in reading.DOCS.glob("*.md")}
    assert walk.ran == {guide: numbers for guide, numbers in wanted.items() if numbers}
