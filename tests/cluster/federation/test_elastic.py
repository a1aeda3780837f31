"""A hospital that gives Ray workers: they train together, and one that goes costs at most the round it was in."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koinon.client.projects import Project
from koinon.client.runs import Run
from tests.cluster import kubectl
from tests.cluster.federation.conftest import OPTIONS
from tests.cluster.federation.league import SITES, League

ELASTIC, ROUNDS = SITES[0], 8
WORKERS = "koinon.dev/project={mark},koinon.dev/node=worker"


@pytest.fixture(scope="module")
def elastic(federation: League) -> Iterator[Project]:
    """One hospital gives one to two workers, the others train in their heads."""
    created = federation.hub.create_project("elastic", sites=SITES, **OPTIONS)
    for site in SITES:
        federation.wait_for_manifest(created, site)
        workers = ("--min-workers", "1", "--max-workers", "2") if site == ELASTIC else ()
        federation.grant(created, site, "--memory", "2", "--disk", "2", *workers)
    federation.clusters_ready(created)
    yield created
    for site in SITES:
        name = f"{created.name}-{created.hash[:8]}"
        kubectl.run("-n", federation.home(site), "delete", "grants.koinon.dev", name, "--timeout=90s", seconds=100)


def workers(federation: League, project: Project) -> list[str]:
    """The names of the hospital's ready workers."""
    found = kubectl.find("pods", federation.work(ELASTIC), WORKERS.format(mark=project.hash[:12]))
    return [
        pod["metadata"]["name"]
        for pod in found
        for condition in pod["status"].get("conditions", [])
        if (condition["type"], condition["status"]) == ("Ready", "True")
    ]


def model(run: Run, target: Path) -> bytes:
    for _ in run.watch(900):
        pass
    return run.download(target).read_bytes()


@pytest.mark.timeout(1_500)
def test_a_worker_that_goes_costs_its_round_and_no_bit(federation: League, elastic: Project, tmp_path: Path) -> None:
    kubectl.until(lambda: len(workers(federation, elastic)) == 2, "both workers are ready", seconds=240)
    assert federation.grant_of(elastic, ELASTIC)["status"]["workers"] == 2
    parameters: dict[str, Any] = {"rounds": ROUNDS, "strategy": "fedavg", "seed": 5, "local_steps": 200}
    undisturbed = model(elastic.submit(**parameters), tmp_path / "undisturbed.safetensors")

    run = elastic.submit(again=True, **parameters)
    steps = run.watch(900)
    next(steps), next(steps)
    gone, struck = workers(federation, elastic)[0], time.time()
    kubectl.run("-n", federation.work(ELASTIC), "delete", "pod", gone, "--grace-period=0", "--force")
    began = time.monotonic()
    next(steps), next(steps)  # the first may have been under way
    print(f"worker: {time.monotonic() - began:.1f} s until two more rounds were done")
    kubectl.until(lambda: len({*workers(federation, elastic)} - {gone}) == 2, "another worker came", seconds=240)
    disturbed = model(run, tmp_path / "disturbed.safetensors")
    assert run.refresh().row["finished"] > struck, "the run was over when the worker went"
    assert disturbed == undisturbed
    again = [event for event in run.events() if event["kind"] == "attempt.failed"]
    assert len(again) <= 1, again
