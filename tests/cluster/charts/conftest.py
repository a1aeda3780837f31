"""The images of the charts' pods, and the kinds of a hospital for charts that do not bring them."""

from collections.abc import Iterator

import pytest

from tests.cluster import kubectl
from tests.cluster.conftest import Cluster, lacking
from tests.cluster.oci import builder, node
from tests.cluster.rendered.render import CHARTS

_NAMES = ("sites.koinon.dev", "grants.koinon.dev")


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> None:
    """Those that run here: no test of a chart starts a Ray pod."""
    if cluster.node:
        for target in ("gateway", "agent", "operator"):
            builder.build(target)
            node.load(builder.name(target))


@pytest.fixture
def definitions(cluster: Cluster) -> Iterator[None]:
    """They are there; those that others installed stay as they are."""
    missing = [name for name in _NAMES if kubectl.get("customresourcedefinition", name) is None]
    if missing:
        kubectl.run("apply", "--server-side", "-f", str(CHARTS / "koinon-site" / "files" / "crds"))
        for name in _NAMES:
            kubectl.run("wait", f"crd/{name}", "--for=condition=Established", "--timeout=30s")
    yield
    if missing:
        kubectl.run("delete", "customresourcedefinition", *missing, "--timeout=120s", seconds=130)


@pytest.fixture
def no_definitions(cluster: Cluster) -> Iterator[None]:
    """None are there, and none stay; what an uninstalled hospital left is removed. Skips where there are hospitals."""
    found = [name for name in _NAMES if kubectl.get("customresourcedefinition", name)]
    if any(kubectl.find(name) for name in found):
        lacking("this cluster has hospitals, and this test is of the first one")

    def remove() -> None:
        kubectl.run("delete", "customresourcedefinition", *_NAMES, "--ignore-not-found", "--timeout=120s", seconds=130)
        kubectl.run("delete", "clusterrole", "koinon-view", "koinon-admin", "--ignore-not-found")

    remove()
    yield
    remove()
