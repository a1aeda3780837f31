"""The custom resource definitions, a hospital of its own for each test, and the operator that serves it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from koinon_operator.kinds import CLAIM, GRANT, SITE, Object
from koinon_operator.kube import Kube
from tests.cluster import kubectl
from tests.cluster.conftest import Cluster
from tests.cluster.operator.rays import Rays
from tests.cluster.operator.running import Running, running
from tests.unit.operator import samples

FOLDER = Path(__file__).parents[3] / "charts/koinon-site/files/crds"
NAMES = ("sites.koinon.dev", "grants.koinon.dev")


@pytest.fixture(scope="module")
def definitions(cluster: Cluster) -> Iterator[None]:
    """Installs the definitions if they are not there; those of a chart's release stay as they are."""
    missing = [name for name in NAMES if kubectl.get("customresourcedefinition", name) is None]
    if missing:
        kubectl.run("apply", "-f", str(FOLDER))
        for name in NAMES:
            kubectl.run("wait", f"crd/{name}", "--for=condition=Established", "--timeout=30s")
    yield
    if missing:
        kubectl.run("delete", "customresourcedefinition", *missing, "--timeout=120s", seconds=130)


@pytest.fixture
def kube(definitions: None) -> Kube:
    return Kube()


@dataclass
class Hospital:
    """A hospital's two namespaces, with its data claim and Site."""

    kube: Kube
    home: str
    work: str

    def site(self) -> Object:
        return self.kube.get(SITE, self.home, "lyon")

    def declare(self, **changes: Any) -> Object:
        return self.kube.create(SITE, samples.site(self.home, self.work, **changes))

    def grant(self, name: str = "heart", **changes: Any) -> Object:
        """Applies a new Grant, from now on."""
        made = samples.grant_resource(samples.manifest(name), home=self.home, **{"now": time.time(), **changes})
        return self.kube.create(GRANT, made)

    def seen(self, grant: Object) -> Object:
        """The Grant as it is now."""
        return self.kube.get(GRANT, self.home, grant["metadata"]["name"])


@pytest.fixture
def hospital(kube: Kube, new_namespace: Callable[[str], str]) -> Hospital:
    found = Hospital(kube, new_namespace("lyon"), new_namespace("lyon-work"))
    found.kube.create(CLAIM, claim(found.work))
    found.declare()
    return found


def claim(work: str, name: str = "heart") -> Object:
    spec = {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": ""}
    return CLAIM.make(work, name, {"spec": spec})


@pytest.fixture
def operator(hospital: Hospital, tmp_path: Path) -> Iterator[Running]:
    with running({hospital.home: hospital.work}, tmp_path / "operator.log") as found:
        yield found


@pytest.fixture
def rays(hospital: Hospital) -> Iterator[Rays]:
    found = Rays(hospital.kube, [hospital.work])
    found.start()
    yield found
    found.close()
    assert not found.errors
