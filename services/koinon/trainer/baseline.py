"""What a federation is compared with: each site alone, and all data in one place.

    python -m koinon.trainer.baseline < request.json

reads {"contract": …, "datasets": {site: path}} and, optionally, "seeds" [42, …], "parameters", "epochs" (50),
"learning_rate" (0.001), "batch_size" (4); writes what `compute` returns. For demonstrations and tests, where
the data of all sites lie on one machine.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koinon.trainer import data, errors, features, packages, steps
from koinon.trainer.data import Contract
from koinon.trainer.errors import TrainerError
from koinon.trainer.features import Split
from koinon.trainer.tensors import Rows, Vector

HEADLINE = {"classification": "accuracy", "regression": "mse"}


class Adam:
    """Kingma and Ba 2015 (ICLR), algorithm 1, in place over a list of tensors; beta 0.9, 0.999; epsilon 1e-8."""

    def __init__(self, parameters: list[torch.nn.Parameter], learning_rate: float) -> None:
        self.parameters, self.rate, self.time = parameters, learning_rate, 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self) -> None:
        self.time += 1
        bias = (1 - 0.999**self.time) ** 0.5
        for parameter, m, v in zip(self.parameters, self.first, self.second, strict=True):
            if parameter.grad is None:
                continue
            m.mul_(0.9).add_(parameter.grad, alpha=0.1)
            v.mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
            parameter.addcdiv_(m, v.sqrt().div_(bias).add_(1e-8), value=-self.rate / (1 - 0.9**self.time))


def train(built: steps.Built, rows: Rows, seed: int, site: str, *, epochs: int, rate: float, batch: int) -> Vector:
    """The model after `epochs` of Adam from the weights that `seed` gives."""
    per_epoch = -(-len(rows.train_y) // batch)
    order = steps.Round(seed, site, 0, epochs * per_epoch, batch, rate, "fedavg", 0.0)
    built.module.train()
    optimiser = Adam(list(built.module.parameters()), rate)
    for chosen in steps.batches(len(rows.train_y), order):
        x, y = torch.from_numpy(rows.train_x[chosen]), torch.from_numpy(rows.train_y[chosen])
        built.module.zero_grad()
        built.learner.loss(built.module, x, y).backward()
        optimiser.step()
    return built.read()


def compute(
    contract: Mapping[str, Any],
    datasets: Mapping[str, Path],
    *,
    seeds: Iterable[int] = (42,),
    parameters: Mapping[str, int | str] | None = None,
    epochs: int = 50,
    learning_rate: float = 0.001,
    batch_size: int = 4,
) -> dict[str, Any]:
    """{"metric", "pooled", "pooled_one_scale", "alone": {site: value}}, each the mean over sites' test rows and seeds.

    `alone` trains on one site and scores on the test rows of all, each scaled as its own site scales. `pooled`
    trains on all training rows, scaled by all of them, and scores like `alone`: so the benchmark of the heart
    data (FLamby) does it, at a loss, since the test rows then come in another scale than the model has learnt.
    `pooled_one_scale` scores the same model on test rows scaled as the training rows were: the fair upper bound.
    """
    declared = data.contract(contract)
    splits = {site: features.split(data.read(path, declared), declared, []) for site, path in datasets.items()}
    own = {site: _scaled(declared, split, split) for site, split in splits.items()}
    pool = _pool(splits)
    one_scale = {site: _scaled(declared, split, pool) for site, split in splits.items()}
    task = steps.Task(len(declared.feature_names), declared.task, dict(parameters or {}))
    metric = HEADLINE[declared.task]
    steps.one_thread()

    def score(rows: Rows, seed: int, name: str, *tests: Mapping[str, Rows]) -> list[float]:
        built = steps.Built(packages.template().learner, task, seed)
        model = train(built, rows, seed, name, epochs=epochs, rate=learning_rate, batch=batch_size)
        return [
            float(np.mean([steps.evaluate(built, site, model)[metric] for site in test.values()])) for test in tests
        ]

    listed = list(seeds)
    pooled = [score(_scaled(declared, pool, pool), seed, "pooled", own, one_scale) for seed in listed]
    alone = {site: [score(rows, seed, site, own)[0] for seed in listed] for site, rows in own.items()}
    return {
        "metric": metric,
        "pooled": float(np.mean([first for first, _ in pooled])),
        "pooled_one_scale": float(np.mean([second for _, second in pooled])),
        "alone": {site: float(np.mean(values)) for site, values in alone.items()},
    }


def _scaled(declared: Contract, split: Split, fitted_on: Split) -> Rows:
    scale = features.scaling(declared, fitted_on.train_x)
    return Rows(scale.apply(split.train_x), split.train_y, scale.apply(split.test_x), split.test_y)


def _pool(splits: Mapping[str, Split]) -> Split:
    parts = list(splits.values())
    return Split(
        np.concatenate([p.train_x for p in parts]),
        np.concatenate([p.train_y for p in parts]),
        np.concatenate([p.test_x for p in parts]),
        np.concatenate([p.test_y for p in parts]),
    )


def main() -> None:
    request = json.load(sys.stdin)
    datasets = {site: Path(path) for site, path in request.pop("datasets").items()}
    try:
        answer = compute(request.pop("contract"), datasets, **request)
    except TrainerError as error:
        errors.record(error)
        answer = {"trouble": error.crossing()}
    json.dump(answer, sys.stdout)
    sys.exit("trouble" in answer)


if __name__ == "__main__":
    main()
