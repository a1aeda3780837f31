"""What the guides say that is the charts' to decide. Their commands run on a real cluster: tests/cluster/guides."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.guides import reading

ROOT = reading.DOCS.parents[1]
CHARTS = ROOT / "charts"
GUIDES = sorted(path.name for path in reading.DOCS.glob("*.md"))


def values(chart: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHARTS / chart / "values.yaml").read_text())
    return found


def images(chart: str) -> Iterator[str]:
    """As a release with `$REGISTRY` and `$TAG` names them."""
    for part in values(chart).values():
        if isinstance(part, dict) and "repository" in (image := part.get("image", {})):
            yield f"$REGISTRY/{image['repository']}:{image['tag'] or '$TAG'}"


def kuberay() -> dict[str, dict[str, Any]]:
    listed = yaml.safe_load_all((CHARTS / "koinon-site" / "files" / "kuberay.yaml").read_text())
    return {found["kind"]: found for found in listed}


def test_the_guide_lists_the_images_of_the_charts() -> None:
    rows = [
        line.split("`")[1] for line in (reading.DOCS / "hub.md").read_text().splitlines() if "| `$REGISTRY/" in line
    ]
    assert sorted(rows) == sorted([*images("koinon-hub"), *images("koinon-site")])


@pytest.mark.parametrize("guide", GUIDES)
def test_every_block_of_commands_is_run_or_about_kuberay(guide: str) -> None:
    assert reading.fences(guide) <= {"sh", "yaml", "console"}
    commands = [line for block in reading.blocks(guide, "console") for line in block.replace("\\\n", "").splitlines()]
    assert all("kuberay" in command for command in commands), commands


def test_kuberays_file_is_what_the_chart_and_the_guide_expect() -> None:
    expected, found = values("koinon-site")["kuberay"], kuberay()
    assert found["ClusterRole"]["metadata"]["name"] == expected["clusterRole"]
    bound = found["RoleBinding"]
    assert bound["roleRef"]["name"] == expected["clusterRole"]
    assert bound["subjects"] == [{"kind": "ServiceAccount", **expected["serviceAccount"]}]
    place = found["Namespace"]["metadata"]["name"]
    assert (bound["metadata"]["namespace"], expected["serviceAccount"]["namespace"]) == (place, place)
    for block in reading.blocks("hospital.md", "console"):
        assert f"--namespace {place} " in block
        assert f"watchNamespace={{{place}" in block


def test_kuberay_may_give_nobody_rights_and_start_nothing_but_pods() -> None:
    written = {
        kind for rule in kuberay()["ClusterRole"]["rules"] for kind in rule["resources"] if "create" in rule["verbs"]
    }
    assert written == {"pods", "services", "secrets", "events"}
