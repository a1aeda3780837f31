"""Faults during a running round, one after the other: nothing is lost, nothing counts twice, the model is the same.

Each pod is deleted without grace in the middle of a run; the seconds until the run's next step are printed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from koinon.client.projects import Project
from koinon.client.runs import Run
from koinon.domain import errors
from tests.cluster import kubectl, lifecycle
from tests.cluster.federation.league import SITES, League

ROUNDS, SEED, STEPS = 6, 11, 10_000
RESUME_SECONDS = 120


def submit(federation: League, project: Project) -> Run:
    """Rounds of some seconds, so that a fault falls into one; the test fails if it does not."""
    kubectl.until(lambda: ready(federation), "the hub is ready after the last fault", seconds=RESUME_SECONDS)
    return project.submit(again=True, rounds=ROUNDS, strategy="fedavg", seed=SEED, local_steps=STEPS)


@pytest.fixture(scope="module")
def undisturbed(federation: League, project: Project) -> bytes:
    return finish(federation, submit(federation, project), "undisturbed")


def ready(federation: League) -> bool:
    try:
        return bool(federation.hub.connection.get("/readyz"))
    except errors.Unavailable:
        return False


def finish(federation: League, run: Run, name: str) -> bytes:
    for _ in run.watch(900):
        pass
    target = federation.folder / f"{name}.safetensors"
    run.download(target)
    return target.read_bytes()


@dataclass(frozen=True)
class Fault:
    """`strike` does it; the federation and a mark of the project's pods are at hand."""

    name: str
    strike: Callable[[League, str], None]


def delete(namespace: Callable[[League], str], *what: str) -> Callable[[League, str], None]:
    def strike(federation: League, mark: str) -> None:
        selected = [word.format(mark=mark) for word in what]
        kubectl.run("-n", namespace(federation), "delete", "pod", *selected, "--grace-period=0", "--force")

    return strike


def hub(federation: League) -> str:
    return federation.hub_namespace


def home(federation: League) -> str:
    return federation.home(SITES[0])


def work(federation: League) -> str:
    return federation.work(SITES[0])


def kubelet(federation: League, mark: str) -> None:
    lifecycle.restart("kubelet")


FAULTS = [
    Fault("gateway", delete(hub, "hub-koinon-hub-0")),
    Fault("agent", delete(home, "koinon-agent-0")),
    Fault("operator", delete(home, "-l", "app.kubernetes.io/component=operator")),
    Fault("ray-head", delete(work, "-l", "koinon.dev/project={mark},koinon.dev/node=head")),
    Fault("minio", delete(hub, "hub-koinon-hub-minio-0")),
    Fault("postgresql", delete(hub, "hub-koinon-hub-postgresql-0")),
    Fault("kubelet", kubelet),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_the_model_is_the_same(
    federation: League, project: Project, undisturbed: bytes, fault: Fault, tmp_path: Path
) -> None:
    if fault.name == "kubelet" and lifecycle.users_own():
        pytest.skip("KUBECONFIG names a cluster of the user's own; its kubelet is left alone")
    run = submit(federation, project)
    steps = run.watch(900)
    for _ in range(2):
        next(steps)
    began = time.monotonic()
    fault.strike(federation, project.hash[:12])
    struck = time.time()
    next(steps)
    next(steps)  # the first may have been under way
    seconds = time.monotonic() - began
    print(f"{fault.name}: {seconds:.1f} s until two more rounds were done")
    for _ in steps:
        pass
    assert run.refresh().row["finished"] > struck, f"the run was over when the {fault.name} went"
    target = tmp_path / "model.safetensors"
    run.download(target)
    assert target.read_bytes() == undisturbed
    assert seconds < RESUME_SECONDS
