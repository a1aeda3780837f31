"""What skaffold.yaml deploys, deployed in its order: Skaffold itself is no program that the tests can have."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import kubectl, pods

ROOT = Path(__file__).parents[2]
HUB, HOSPITAL = "koinon-hub", "cleveland"
NAMESPACES = (HUB, HOSPITAL, f"{HOSPITAL}-work")
# The bundled servers come from the cluster's own registry here.
SERVERS = [
    f"--set=minio.image.repository={pods.REGISTRY}/minio", "--set-string=minio.image.tag=1",
    f"--set=postgresql.image.repository={pods.REGISTRY}/postgresql", "--set-string=postgresql.image.tag=1",
]  # fmt: skip


@pytest.fixture
def emptied(cluster: object, images: object) -> Iterator[None]:
    present = [name for name in NAMESPACES if kubectl.get("namespace", name)]
    assert not present, f"the namespaces {present} are in use"
    yield
    for namespace, release in ((HOSPITAL, HOSPITAL), (HUB, "hub")):
        kubectl.helm("uninstall", release, "-n", namespace, "--ignore-not-found", "--wait")
    kubectl.run("delete", "namespace", *NAMESPACES, "--ignore-not-found", "--wait=true", seconds=180)


def deploy(helm: dict[str, Any], *options: str) -> None:
    """The hooks, then one release after the other."""
    for hook in helm.get("hooks", {}).get("before", []):
        subprocess.run(hook["host"]["command"], cwd=ROOT, check=True, timeout=180)
    for release in helm["releases"]:
        given = [f"--values={ROOT / path}" for path in release["valuesFiles"]]
        given += [f"--set={key}={value}" for key, value in release.get("setValues", {}).items()]
        given += [f"--set-string={key}={_image(t)}" for key, t in release["setValueTemplates"].items()]
        given += ["--create-namespace"] if release.get("createNamespace") else []
        name, chart, namespace = release["name"], str(ROOT / release["chartPath"]), release["namespace"]
        kubectl.helm("upgrade", "--install", name, chart, "-n", namespace, *given, *options, "--wait", seconds=300)


def _image(template: str) -> str:
    part, name = re.fullmatch(r"\{\{\.IMAGE_(REPO|TAG)_(\w+)\}\}", template).groups()  # type: ignore[union-attr]
    return f"{pods.REGISTRY}/{name.replace('_', '-')}" if part == "REPO" else "test"


@pytest.mark.usefixtures("emptied")
def test_one_hospital_connects() -> None:
    configs = list(yaml.safe_load_all((ROOT / "skaffold.yaml").read_text()))
    assert configs[1]["requires"] == [{"configs": [configs[0]["metadata"]["name"]]}]
    deploy(configs[0]["deploy"]["helm"], *SERVERS)
    known = kubectl.get("customresourcedefinition", "sites.koinon.dev") is not None
    deploy(configs[1]["deploy"]["helm"], f"--set=crds.install={str(not known).lower()}")

    def connected() -> bool:
        site = kubectl.required("sites.koinon.dev", HOSPITAL, HOSPITAL)
        conditions = {c["type"]: c["status"] for c in site.get("status", {}).get("conditions", [])}
        return conditions.get("Connected") == "True"

    kubectl.until(connected, f"{HOSPITAL} answers the hub", seconds=120)
