"""Several workers train together in a real Ray of several nodes; they come, go, hang and fail in the middle of a round.

Whatever happens to them, the update has the bytes that one process gives, which cuts its batches alike.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from koinon.trainer import averaging, data, features, packages, steps
from koinon.trainer.tensors import Rows
from tests.cluster.ray import raynodes
from tests.cluster.ray.raynodes import Cluster, Node
from tests.services.trainers import CONTRACT, HEART, LEARNER, PARAMETERS, body, first_weights, trouble, wait_until

PARTS = 3
LONG = 4_000  # steps; seconds on any machine
Vectors = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with raynodes.running() as started:
        for _ in range(2):
            started.add()
        assert started.prepare(parts=PARTS).status_code == 200
        workers_train(started, 2)
        yield started


def workers_train(cluster: Cluster, count: int) -> None:
    """Rounds go on until Ray knows of all nodes; then the trainer must use every worker."""
    start = np.zeros(14, np.float32)
    numbers = iter(range(1_000_000, 2_000_000))

    def round_on_all() -> bool:
        body(cluster.round("/v1/fit", start, round=next(numbers)), "update")
        return len(cluster.trained_on()) == count

    assert wait_until(round_on_all, 60), cluster.log.read_text()
    assert cluster.nodes[0] not in cluster.trained_on()


def rows() -> Rows:
    declared = data.contract(CONTRACT)
    return features.rows(data.read(HEART / "cleveland.csv", declared), declared, [])


def here(vectors: Vectors, parts: int = PARTS, number: int = 1, **changes: Any) -> Vectors:
    """The round in this process; `parts` 0: each batch in one piece."""
    parameters = {**PARAMETERS, **changes}
    steps.one_thread()
    built = steps.Built(packages.template().learner, steps.Task(13, "classification", parameters), 42)
    gradients = averaging.Averaged(parts) if parts else steps.whole
    return steps.fit(built, rows(), steps.Round.of(42, "cleveland", number, parameters), vectors, gradients)[0]


@contextmanager
def at_work(cluster: Cluster, node: Node, act: Any) -> Iterator[None]:
    """`act` in the middle of the round that the body asks for: once the node's actor has computed for a while."""

    def wait_and_act() -> None:
        before = worked(node)
        while worked(node) < before + 0.5:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    yield
    assert not thread.is_alive(), "the round was over before anything happened"


def actor(node: Node) -> int:
    found = [pid for pid, command in node.everything().items() if command.startswith("ray::Actor")]
    assert len(found) == 1, node.everything()
    return found[0]


def worked(node: Node) -> float:
    with open(f"/proc/{actor(node)}/stat") as status:
        fields = status.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "scaffold"])
def test_two_workers_give_the_bytes_of_one_process(cluster: Cluster, strategy: str) -> None:
    draw = np.random.default_rng(4)
    prefixes = ("model", "control", "local") if strategy == "scaffold" else ("model",)
    vectors = {prefix: draw.normal(0, 0.1, 14).astype(np.float32) for prefix in prefixes}
    answered = ("update", "control") if strategy == "scaffold" else ("update",)
    response = cluster.round("/v1/fit", *vectors.values(), parameters={"strategy": strategy})
    report, values = body(response, *answered)
    assert len(cluster.trained_on()) == 2
    alone, whole = here(vectors, strategy=strategy), here(vectors, parts=0, strategy=strategy)
    assert np.array_equal(values, np.concatenate([alone[name] for name in answered]))
    for name in answered:
        assert np.linalg.norm(alone[name] - whole[name]) < 1e-5 * np.linalg.norm(whole[name])
    assert (report["rows"], report["evaluation"]["rows"]) == (199, 104)


def test_asked_again_it_computes_the_same_bytes(cluster: Cluster) -> None:
    start = first_weights(cluster)
    values = [  # Fedavg does not look at mu: the same work, and yet another request, so no answer from memory.
        body(cluster.round("/v1/fit", start, parameters={"mu": mu}), "update")[1].tobytes() for mu in ("0.1", "0.2")
    ]
    assert values[0] == values[1] == here({"model": start})["update"].tobytes()


def test_a_batch_smaller_than_the_workers_leaves_some_idle(cluster: Cluster) -> None:
    start = first_weights(cluster)
    _, values = body(cluster.round("/v1/fit", start, parameters={"batch_size": 1}), "update")
    assert np.array_equal(values, here({"model": start}, batch_size=1)["update"])


def test_a_worker_that_comes_is_used_from_the_next_round_on(cluster: Cluster) -> None:
    start = first_weights(cluster)
    cluster.add()
    workers_train(cluster, 3)
    _, values = body(cluster.round("/v1/fit", start, round=2), "update")
    assert np.array_equal(values, here({"model": start}, number=2)["update"])
    assert "Training on 3 of" in cluster.log.read_text()


def test_a_worker_that_goes_in_the_middle_of_a_round_costs_that_round(cluster: Cluster) -> None:
    start = first_weights(cluster)
    gone, *left = cluster.trained_on()
    began = time.monotonic()
    with at_work(cluster, gone, gone.kill):
        _, values = body(cluster.round("/v1/fit", start, round=3, parameters={"local_steps": LONG}), "update")
    print(f"a round of {LONG} steps whose worker went: {time.monotonic() - began:.1f} s")
    assert np.array_equal(values, here({"model": start}, number=3, local_steps=LONG)["update"])
    assert cluster.trained_on() == left


def test_an_actor_that_dies_is_replaced_where_it_was(cluster: Cluster) -> None:
    start = first_weights(cluster)
    before = {node: actor(node) for node in cluster.trained_on()}
    victim = next(iter(before))
    with at_work(cluster, victim, lambda: os.kill(before[victim], signal.SIGKILL)):
        _, values = body(cluster.round("/v1/fit", start, round=4, parameters={"local_steps": LONG}), "update")
    assert np.array_equal(values, here({"model": start}, number=4, local_steps=LONG)["update"])
    assert all(actor(node) != pid for node, pid in before.items())


def test_a_worker_that_hangs_ends_with_the_rounds_time(cluster: Cluster) -> None:
    start = first_weights(cluster)
    hung = cluster.trained_on()[-1]
    frozen = actor(hung)
    with at_work(cluster, hung, lambda: os.kill(frozen, signal.SIGSTOP)):
        began = time.monotonic()
        response = cluster.round("/v1/fit", start, round=5, timeout=8, parameters={"local_steps": LONG})
        trouble(response, 504, "timeout")
        assert 8 <= time.monotonic() - began < 12
    _, values = body(cluster.round("/v1/fit", start, round=5), "update")
    assert np.array_equal(values, here({"model": start}, number=5)["update"])
    assert wait_until(lambda: not os.path.exists(f"/proc/{frozen}"))


def test_a_package_trains_alike_on_all_workers(cluster: Cluster) -> None:
    name = cluster.package("own", LEARNER, parts=PARTS)
    start = first_weights(cluster, name)
    _, values = body(cluster.round("/v1/fit", start, project=name), "update")
    assert np.array_equal(values, here({"model": start})["update"])  # the template's equal
    assert len(cluster.trained_on()) == 2


ONCE = """
        if model.training:
            try:
                os.open(FLAG, os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                pass
            else:
                raise ValueError
"""


def test_trouble_of_one_rank_is_the_rounds(cluster: Cluster) -> None:
    """The others wait for it, and must not for long."""
    loss = "        return torch.nn.functional"
    flag = repr(str(cluster.folder / "flag"))
    code = LEARNER.replace("import koinon", "import koinon, os").replace(loss, ONCE.replace("FLAG", flag) + loss)
    name = cluster.package("own", code, parts=PARTS)
    start = first_weights(cluster, name)
    found = trouble(cluster.round("/v1/fit", start, project=name, timeout=60), 422, "learner_error")
    assert (found["error"], found["place"]) == ("ValueError", "model.py:16")
    _, values = body(cluster.round("/v1/fit", start, project=name), "update")  # the flag is there: nobody fails
    assert np.array_equal(values, here({"model": start})["update"])
    assert len(cluster.trained_on()) == 2


def test_ranks_that_drift_apart_are_found_out(cluster: Cluster) -> None:
    drifting = """
    def optimizer(self, model, learning_rate):
        class Drifting:
            def step(self):
                with torch.no_grad():
                    next(model.parameters()).add_(1e-3 * os.getpid())
        return Drifting()
"""
    code = LEARNER.replace("import koinon", "import koinon, os") + drifting
    name = cluster.package("own", code, parts=PARTS)
    response = cluster.round("/v1/fit", first_weights(cluster, name), project=name)
    incident = trouble(response, 422, "learner_invalid")["incident"]
    assert re.search(f"{incident}.*\n.*different models", cluster.log.read_text())


def test_without_workers_the_head_trains(cluster: Cluster) -> None:
    start = first_weights(cluster)
    for node in cluster.trained_on():
        node.kill()
    _, values = body(cluster.round("/v1/fit", start, round=6), "update")
    assert np.array_equal(values, here({"model": start}, number=6)["update"])
    assert cluster.trained_on() == [cluster.nodes[0]]
