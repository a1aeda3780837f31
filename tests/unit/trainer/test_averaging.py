"""Gradients in parts: up to rounding those of the whole batch, and to the bit the same from any number of ranks."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from koinon.learner import Model
from koinon.trainer import averaging, packages, peers, steps
from koinon.trainer.tensors import Rows, Vector

PARAMETERS: dict[str, int | str] = {
    "local_steps": 23,
    "batch_size": 8,
    "learning_rate": "0.1",
    "mu": "0.5",
    "architecture": "mlp",
    "hidden": 5,
}
STRATEGIES = ["fedavg", "fedprox", "scaffold"]
SECRET = bytes(32)
Answer = dict[str, Vector]


def setup_module() -> None:
    steps.one_thread()


def rows(count: int = 30) -> Rows:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(count + 10, 3)).astype(np.float32)
    y = (x[:, :1] + draw.normal(size=(count + 10, 1)) > 0).astype(np.float32)
    return Rows(x[:count], y[:count], x[count:], y[count:])


def fit(gradients: steps.Gradients, strategy: str = "fedavg", kind: type[Model] | None = None, **more: Any) -> Answer:
    """The second round: its batches go over the end of an epoch, whose last batch has 6 rows."""
    parameters = {**PARAMETERS, "strategy": strategy, **more}
    built = steps.Built(kind or packages.template().learner, steps.Task(3, "classification", parameters), 42)
    draw = np.random.default_rng(2)
    names = ("model", "control", "local") if strategy == "scaffold" else ("model",)
    vectors = {name: draw.normal(0, 0.3, built.read().size).astype(np.float32) for name in names}
    return steps.fit(built, rows(), steps.Round.of(42, "lyon", 2, parameters), vectors, gradients)[0]


def together(ranks: int, work: Callable[[peers.Peers], Answer]) -> list[Answer]:
    """`work` on ranks that are threads of this process and talk over TCP. Random numbers they would share."""
    listeners = [peers.listen("127.0.0.1") for _ in range(ranks)]
    addresses = [listener.getsockname() for listener in listeners]

    def run(rank: int) -> Answer:
        group = peers.Connected(rank, addresses, listeners[rank], SECRET)
        answer = work(group)
        assert group.agree(answer["update"].tobytes()[:32])
        group.close()
        return answer

    with ThreadPoolExecutor(ranks) as threads:
        return list(threads.map(run, range(ranks)))


def same(first: Answer, second: Answer) -> bool:
    return {name: v.tobytes() for name, v in first.items()} == {name: v.tobytes() for name, v in second.items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("most", [2, 3, 8, 50])
def test_parts_give_the_whole_batchs_update_up_to_rounding(strategy: str, most: int) -> None:
    whole, cut = fit(steps.whole, strategy), fit(averaging.Averaged(most), strategy)
    assert whole.keys() == cut.keys()
    for name, vector in whole.items():
        assert np.linalg.norm(cut[name] - vector) < 1e-5 * np.linalg.norm(vector)
    assert same(cut, fit(averaging.Averaged(most), strategy))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("ranks", "most"), [(2, 2), (2, 3), (3, 3), (3, 4), (5, 50)])
def test_any_number_of_ranks_gives_the_same_bytes(strategy: str, ranks: int, most: int) -> None:
    alone = fit(averaging.Averaged(most), strategy)
    answers = together(ranks, lambda group: fit(averaging.Averaged(most, group), strategy))
    assert all(same(answer, alone) for answer in answers)


def test_ranks_without_rows_are_idle_and_harmless() -> None:
    """Batches of 2, and at the end of an epoch of 1, for 4 ranks."""
    small: dict[str, Any] = {"batch_size": 2, "local_steps": 31}
    alone = fit(averaging.Averaged(4), **small)
    answers = together(4, lambda group: fit(averaging.Averaged(4, group), **small))
    assert all(same(answer, alone) for answer in answers)
    whole = fit(steps.whole, **small)["update"]
    assert np.linalg.norm(alone["update"] - whole) < 1e-5 * np.linalg.norm(whole)


class Statistics(Model):
    """Running statistics, a counter that counts in them, a mask with infinities and a parameter nobody uses."""

    def build(self, inputs: int) -> Any:
        module = torch.nn.Sequential(torch.nn.BatchNorm1d(inputs, momentum=None), torch.nn.Linear(inputs, 1))
        module.register_buffer("mask", torch.tensor([0.1, -torch.inf, 1 / 3]))
        module.register_parameter("idle", torch.nn.Parameter(torch.ones(2)))
        return module

    def loss(self, model: Any, x: Any, y: Any) -> Any:
        if model.training:
            assert model.idle.grad is None
        return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)


class Noisy(Statistics):
    """Draws random numbers in each step, of torch and of numpy, and in its optimiser."""

    def loss(self, model: Any, x: Any, y: Any) -> Any:
        return super().loss(model, torch.nn.functional.dropout(x) + float(np.random.normal()), y)

    def optimizer(self, model: Any, learning_rate: float) -> Any:
        class Langevin:
            @torch.no_grad()
            def step(self) -> None:
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.add_(parameter.grad + 0.01 * torch.randn_like(parameter), alpha=-learning_rate)

        return Langevin()


def test_statistics_are_averaged_and_constants_stay() -> None:
    alone = fit(averaging.Averaged(3), kind=Statistics)["update"]
    answers = together(3, lambda group: fit(averaging.Averaged(3, group), kind=Statistics))
    assert all(same(answer, {"update": alone}) for answer in answers)
    built = steps.Built(Statistics, steps.Task(3, "classification", PARAMETERS), 42)
    change = built.aligned(alone)
    assert not change["idle"].any()
    assert change["0.running_mean"].all()
    assert change["0.running_var"].all()


def test_random_numbers_belong_to_parts() -> None:
    first = fit(averaging.Averaged(3), kind=Noisy)
    torch.rand(5)
    np.random.normal()
    assert same(fit(averaging.Averaged(3), kind=Noisy), first)
    assert not same(fit(averaging.Averaged(2), kind=Noisy), first)
