"""The cluster that the tests of this folder use: the test node, or the user's own that KUBECONFIG names."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.cluster import kubectl, leftovers, lifecycle
from tests.cluster.oci import builder
from tests.cluster.oci import node as oci_node


@dataclass(frozen=True)
class Cluster:
    """`node`: it is the test node. `before`: the machine's traces before this session started it."""

    node: bool
    before: leftovers.Traces | None = None


def lacking(reason: str) -> None:
    """Skips the test; in CI, where all must run, it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Starts the test node if none is up, and stops what it started, unless KOINON_KEEP_CLUSTER=1."""
    if lifecycle.users_own():
        os.environ["PATH"] = lifecycle.environment()["PATH"]  # helm and kubeconform, if only the node's are here
        yield Cluster(node=False)
        return
    if reason := lifecycle.obstacle():
        lacking(reason)
    up, stays = lifecycle.is_up(), os.environ.get("KOINON_KEEP_CLUSTER") == "1"
    before = None if up or stays else leftovers.traces()
    old = dict(os.environ)
    os.environ.update(lifecycle.environment())
    try:
        if not up:
            started = time.monotonic()
            lifecycle.start()
            print(f"node up: {time.monotonic() - started:.1f} s")
        yield Cluster(node=True, before=before)
    finally:
        os.environ.clear()
        os.environ.update(old)
        if not (up or stays):
            lifecycle.stop()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> None:
    """The project's own images, built and in the node. A cluster of the user's own pulls them from its registry."""
    if cluster.node:
        for target in builder.TARGETS:
            builder.build(target)
            oci_node.load(builder.name(target))


@pytest.fixture
def node(cluster: Cluster) -> Cluster:
    """The test node; a test that reaches into it does not run on a cluster of the user's own."""
    if not cluster.node:
        pytest.skip("KUBECONFIG names a cluster of the user's own; this test is of the test node")
    return cluster


@pytest.fixture
def new_namespace(cluster: Cluster) -> Iterator[Callable[[str], str]]:
    """Makes namespaces with Pod Security "restricted", named `koinon-test-<random>-<what is given>`; they go after."""
    made: list[str] = []

    def make(name: str) -> str:
        namespace = f"koinon-test-{secrets.token_hex(3)}-{name}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
        made.append(namespace)
        kubectl.until(lambda: kubectl.get("serviceaccount", "default", namespace), f"a service account in {namespace}")
        return namespace

    yield make
    if made:
        kubectl.run("delete", "namespace", *made, "--wait=false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What ends the node comes last."""
    items.sort(key=lambda item: item.name.startswith("test_down_"))
