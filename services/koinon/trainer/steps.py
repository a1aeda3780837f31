"""Local steps and scores of one model at one site: a function of its arguments, down to the last bit.

Which batch a step sees depends on nothing but (seed, site, global step): a round can be repeated, or
trained after others were missed, and gives the same bytes. Everything runs on one thread of the CPU, or on
the GPU that the hospital gives.
"""

import contextlib
import hashlib
import os
import random
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from koinon.learner import Model
from koinon.trainer import tensors
from koinon.trainer.errors import TrainerError
from koinon.trainer.tensors import Layout, Rows, Vector

CHUNK = 1_024  # rows scored at once
BINS = 64


@dataclass(frozen=True)
class Task:
    """What a learner is built for."""

    inputs: int
    kind: str  # classification, regression
    parameters: Mapping[str, int | str]


@dataclass(frozen=True)
class Round:
    """One site's local work. `index` counts training rounds from 0."""

    seed: int
    site: str
    index: int
    steps: int
    batch: int
    learning_rate: float
    strategy: str
    mu: float

    @classmethod
    def of(cls, seed: int, site: str, number: int, parameters: Mapping[str, int | str]) -> "Round":
        return cls(
            seed=seed,
            site=site,
            index=number - 1,
            steps=int(parameters["local_steps"]),
            batch=int(parameters["batch_size"]),
            learning_rate=float(parameters["learning_rate"]),
            strategy=str(parameters["strategy"]),
            mu=float(parameters.get("mu", 0)),
        )


class Built:
    """A learner with its module, and the module's floating-point state as one flat vector."""

    def __init__(self, kind: type[Model], task: Task, seed: int, device: str = "cpu") -> None:
        """The first weights are drawn on the CPU: they are the same on every `device`."""
        self.device = device
        self.learner = kind()
        self.learner.task, self.learner.parameters = task.kind, dict(task.parameters)
        self.task = task
        seed_all(seed)
        self.module = self.learner.build(task.inputs)
        if not isinstance(self.module, torch.nn.Module):
            raise TrainerError("learner_invalid", "build() returned no torch.nn.Module")
        self.module.to(device)
        self.state = {name: t for name, t in self.module.state_dict().items() if t.is_floating_point()}
        trained = dict(self.module.named_parameters())
        odd = [name for name, tensor in (self.state | trained).items() if tensor.dtype != torch.float32]
        if odd or not self.state:
            raise TrainerError("learner_invalid", f"not float32: {odd}" if odd else "the module has no parameters")

    @property
    def layout(self) -> Layout:
        return tuple((name, tuple(tensor.shape)) for name, tensor in self.state.items())

    def read(self) -> Vector:
        """A copy of the state, in the order of the layout."""
        return torch.cat([tensor.detach().reshape(-1) for tensor in self.state.values()]).cpu().numpy()

    def write(self, vector: Vector) -> None:
        for tensor, part in zip(self.state.values(), self.parts(vector), strict=True):
            tensor.copy_(part)

    def parts(self, vector: Vector) -> Iterator[torch.Tensor]:
        """`vector` cut into tensors of the layout; copies, since a vector from Ray's store is read-only."""
        offset = 0
        for tensor in self.state.values():
            end = offset + tensor.numel()
            yield torch.from_numpy(vector[offset:end].copy()).reshape(tensor.shape).to(self.device)
            offset = end

    def aligned(self, vector: Vector) -> dict[str, torch.Tensor]:
        return dict(zip(self.state, self.parts(vector), strict=True))


def derive(*parts: int | str) -> int:
    """A seed of 63 bits out of what it is for."""
    text = "\0".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def seed_all(seed: int) -> None:
    """The numbers that torch.manual_seed gives, and the generators a learner might use beside torch's."""
    # torch.manual_seed notes a stack trace and a call for each device that is never used: half a millisecond.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def one_thread() -> None:
    """Once per process, before the first operation."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, CUDA's products are refused below
    torch.set_num_threads(1)
    with contextlib.suppress(RuntimeError):  # it may be set only once
        torch.set_num_interop_threads(1)
    # The same switch as use_deterministic_algorithms, without loading torch's compiler: seconds in every fresh process.
    torch.set_deterministic_debug_mode("error")
    # A loss of (rows,) against (rows, 1) is broadcast to (rows, rows): torch only warns, and the model learns nothing.
    warnings.filterwarnings("error", message="Using a target size", category=UserWarning)


def batches(rows: int, round_: Round) -> Iterator[npt.NDArray[np.int64]]:
    """The row numbers of each step. Epoch e of a site is one permutation; its last batch may be short."""
    per_epoch = -(-rows // round_.batch)
    epoch, order = -1, np.empty(0, dtype=np.int64)
    for step in range(round_.index * round_.steps, (round_.index + 1) * round_.steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.Generator(np.random.PCG64(derive(round_.seed, round_.site, epoch))).permutation(rows)
        first = (step % per_epoch) * round_.batch
        yield order[first : first + round_.batch]


class Gradients(Protocol):
    """Leaves in each parameter's `grad` the gradient of the mean loss over the rows `chosen`.

    `step` counts the site's training steps from the first round on. Raises TrainerError nan_loss, learner_invalid.
    """

    def __call__(self, built: Built, rows: Rows, chosen: npt.NDArray[np.int64], round_: Round, step: int) -> None: ...


def backward(built: Built, rows: Rows, chosen: npt.NDArray[np.int64]) -> None:
    """Adds the gradient of the mean loss over `chosen` to what is there. Raises as Gradients do."""
    x, y = torch.from_numpy(rows.train_x[chosen]), torch.from_numpy(rows.train_y[chosen])
    _loss(built, x.to(built.device), y.to(built.device)).backward()


def whole(built: Built, rows: Rows, chosen: npt.NDArray[np.int64], round_: Round, step: int) -> None:
    """The Gradients of a batch in one piece."""
    for parameter in built.module.parameters():
        parameter.grad = None
    backward(built, rows, chosen)


def fit(
    built: Built, rows: Rows, round_: Round, vectors: Mapping[str, Vector], gradients: Gradients = whole
) -> tuple[dict[str, Vector], float]:
    """`update` = y − x (and for Scaffold `control`, new c_i − old c_i) from `vectors["model"]` = x, and seconds.

    FedProx adds mu (y − x) to each gradient (Li et al. 2020, MLSys, eq. 2). Scaffold adds c − c_i and sets
    c_i to c_i − c + (x − y) / (K lr), its option II (Karimireddy et al. 2020, ICML, eqs. 3 and 4); c and
    c_i are `vectors["control"]` and `vectors["local"]`. Raises TrainerError nan_loss, nan_update, learner_invalid.
    """
    start = time.perf_counter()
    built.write(vectors["model"])
    seed_all(derive(round_.seed, round_.site, "round", round_.index))
    built.module.train()
    named = [(name, p) for name, p in built.module.named_parameters() if p.requires_grad]
    optimiser = built.learner.optimizer(built.module, round_.learning_rate)
    if optimiser is not None and round_.strategy == "scaffold":
        raise TrainerError("strategy", "Scaffold's control variates hold for plain SGD only")
    shift = _shift(built, round_, vectors, named)
    for step, chosen in enumerate(batches(len(rows.train_y), round_), round_.index * round_.steps):
        gradients(built, rows, chosen, round_, step)
        with torch.no_grad():
            for name, parameter in named:
                if parameter.grad is None:
                    continue
                if round_.strategy == "fedprox":
                    parameter.grad.add_(parameter - shift[name], alpha=round_.mu)
                elif round_.strategy == "scaffold":
                    parameter.grad.add_(shift[name])
                if optimiser is None:
                    parameter.add_(parameter.grad, alpha=-round_.learning_rate)
        if optimiser is not None:
            optimiser.step()
    update = built.read() - vectors["model"]
    if not np.isfinite(update).all():
        raise TrainerError("nan_update", "the trained model is not finite")
    answer = {"update": update}
    if round_.strategy == "scaffold":
        answer["control"] = _control(built, round_, vectors, update, {name for name, _ in named})
    return answer, time.perf_counter() - start


def _shift(
    built: Built, round_: Round, vectors: Mapping[str, Vector], named: list[tuple[str, torch.nn.Parameter]]
) -> dict[str, torch.Tensor]:
    """Per parameter what its gradient is corrected with: x for FedProx, c − c_i for Scaffold."""
    if round_.strategy == "fedprox":
        return {name: parameter.detach().clone() for name, parameter in named}
    if round_.strategy == "scaffold":
        return built.aligned(vectors["control"] - vectors["local"])
    return {}


def _control(built: Built, round_: Round, vectors: Mapping[str, Vector], update: Vector, trained: set[str]) -> Vector:
    """new c_i − old c_i; 0 for what has no gradient, such as running statistics."""
    change = -vectors["control"] - update / np.float32(round_.steps * round_.learning_rate)
    offset = 0
    for name, shape in built.layout:
        end = offset + tensors.size(((name, shape),))
        if name not in trained:
            change[offset:end] = 0
        offset = end
    return change.astype(np.float32)


def _loss(built: Built, x: torch.Tensor, y: torch.Tensor) -> Any:
    loss = built.learner.loss(built.module, x, y)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        shapes = [tuple(loss.shape)] if isinstance(loss, torch.Tensor) else []
        raise TrainerError("learner_invalid", "loss() returned no scalar tensor", shapes=shapes)
    if not torch.isfinite(loss):
        raise TrainerError("nan_loss", "the loss is not a finite number")
    return loss.reshape(())


def evaluate(built: Built, rows: Rows, vector: Vector) -> dict[str, Any]:
    """The model's scores on the test rows, as domain.metrics.words reads them.

    Classification has `correct`, `accuracy` (threshold 0.5) and the histograms of the probability per
    class; `mse` and `mae` are of the prediction (of the probability: Brier's score). `loss` is the mean.
    """
    built.write(vector)
    seed_all(0)
    built.module.eval()
    losses, predicted = 0.0, []
    count = len(rows.test_y)
    with torch.no_grad():
        for first in range(0, count, CHUNK):
            x = torch.from_numpy(rows.test_x[first : first + CHUNK].copy()).to(built.device)
            y = torch.from_numpy(rows.test_y[first : first + CHUNK].copy()).to(built.device)
            losses += float(_loss(built, x, y)) * len(y)
            predicted.append(_prediction(built, x))
    values, truth = np.concatenate(predicted), rows.test_y[:, 0].astype(np.float64)
    error = values - truth
    scores: dict[str, Any] = {
        "rows": count,
        "loss": losses / count,
        "mse": float(np.mean(error**2)),
        "mae": float(np.mean(np.abs(error))),
    }
    if built.task.kind == "classification":
        correct = int(((values > 0.5) == (truth > 0.5)).sum())
        bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
        scores |= {
            "correct": correct,
            "accuracy": correct / count,
            "negatives": np.bincount(bins[truth < 0.5], minlength=BINS).tolist(),
            "positives": np.bincount(bins[truth > 0.5], minlength=BINS).tolist(),
        }
    return scores


def _prediction(built: Built, x: torch.Tensor) -> npt.NDArray[np.float64]:
    output = built.learner.predict(built.module, x)
    if not isinstance(output, torch.Tensor) or output.numel() != len(x):
        shapes = [tuple(output.shape)] if isinstance(output, torch.Tensor) else []
        raise TrainerError("learner_invalid", f"predict() gave no value per row of {len(x)}", shapes=shapes)
    values = output.detach().reshape(-1).cpu().to(torch.float64).numpy()
    if not np.isfinite(values).all():
        raise TrainerError("nan_prediction", "a prediction is not a finite number")
    if built.task.kind == "classification" and (values.min() < 0 or values.max() > 1):
        raise TrainerError("prediction_range", "predict() must give probabilities between 0 and 1")
    return values
