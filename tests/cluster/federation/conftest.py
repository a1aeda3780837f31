"""One federation on the cluster for all tests of this folder: a hub, three hospitals, the heart project granted."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koinon.client.projects import Project
from koinon.data import heart
from tests.cluster.conftest import Cluster
from tests.cluster.federation import league
from tests.cluster.federation.league import SITES, League

OPTIONS: dict[str, Any] = {
    "contract": heart.CONTRACT,
    "purpose": "Predict heart disease from 13 features.",
    "deadlines": {"train": 900, "phase": 300},
}


@pytest.fixture(scope="package")
def federation(cluster: Cluster, images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[League]:
    folder = tmp_path_factory.mktemp("league")
    with league.installed(folder, f"pilot-{secrets.token_hex(2)}") as found:
        yield found


@pytest.fixture(scope="package")
def project(federation: League) -> Project:
    """Created over HTTP, granted with kubectl, its clusters ready."""
    began = time.monotonic()
    created = federation.hub.create_project("heart", sites=SITES, **OPTIONS)
    for site in SITES:
        federation.wait_for_manifest(created, site)
    received = time.monotonic()
    for site in SITES:
        federation.grant(created, site, "--memory", "2", "--disk", "2")
    federation.clusters_ready(created)
    federation.seconds["project received"] = round(received - began, 1)
    federation.seconds["granted until clusters ready"] = round(time.monotonic() - received, 1)
    return created


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What ends a grant comes last of this folder; the items are those of all folders."""
    here = [Path(__file__).parent in item.path.parents for item in items]
    own = [item for item, mine in zip(items, here, strict=True) if mine]
    ordered = iter(sorted(own, key=lambda item: item.name.startswith("test_revocation")))
    items[:] = [next(ordered) if mine else item for item, mine in zip(items, here, strict=True)]
