"""The published figures again, with everything on: real hub, agents, Ray, secure aggregation, sealed artifacts."""

import statistics
from collections.abc import Iterator

import pytest

from koinon.client import local
from koinon.client.local import Local
from koinon.client.projects import Project
from tests.science.test_heart import PUBLISHED, RATES, SEEDS

MEANS = {"fedavg": 0.6850, "fedyogi": 0.7314}  # arXiv 2210.04620, as published


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local.local(4, folder=tmp_path_factory.mktemp("federation")) as running:
        yield running


@pytest.fixture(scope="module")
def project(federation: Local) -> Project:
    return federation.create_project("heart")


def accuracy(project: Project, strategy: str, seed: int) -> float:
    local_rate, server_rate = RATES[strategy]
    run = project.submit(
        strategy=strategy, seed=seed, rounds=15, learning_rate=local_rate, server_learning_rate=server_rate
    ).wait(600)
    version, scores = run.metrics()[-1]
    assert version == 15
    return scores["accuracy"]["mean"]


@pytest.mark.parametrize("strategy", MEANS)
def test_protected_runs_reach_the_published_figures(project: Project, strategy: str) -> None:
    reached = [accuracy(project, strategy, seed) for seed in SEEDS]
    print(strategy, [round(value, 4) for value in reached], round(statistics.mean(reached), 4))
    assert reached == pytest.approx(PUBLISHED[strategy], abs=0.01)
    assert statistics.mean(reached) == pytest.approx(MEANS[strategy], abs=0.005)


def test_fedadam_of_the_first_seed(project: Project) -> None:
    assert accuracy(project, "fedadam", 42) == pytest.approx(0.7213, abs=0.01)
