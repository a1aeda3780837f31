"""Local steps: the same bytes whatever happened before, and the papers' equations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from koinon.domain import layout as layouts
from koinon.domain import metrics
from koinon.learner import Model
from koinon.trainer import packages, steps, tensors
from koinon.trainer.errors import TrainerError
from koinon.trainer.tensors import Rows, Vector

Float = np.ndarray[Any, np.dtype[np.float64]]
PARAMETERS: dict[str, int | str] = {
    "strategy": "fedavg",
    "local_steps": 25,
    "batch_size": 4,
    "learning_rate": "0.1",
    "mu": "0.5",
}


def setup_module() -> None:
    steps.one_thread()


def rows(count: int = 30, inputs: int = 3) -> Rows:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(count + 10, inputs)).astype(np.float32)
    y = (x[:, :1] + draw.normal(size=(count + 10, 1)) > 0).astype(np.float32)
    return Rows(x[:count], y[:count], x[count:], y[count:])


def build(kind: type[Model] | None = None, inputs: int = 3, task: str = "classification", **more: Any) -> steps.Built:
    return steps.Built(kind or packages.template().learner, steps.Task(inputs, task, {**PARAMETERS, **more}), 42)


def round_of(number: int = 1, **changes: Any) -> steps.Round:
    return steps.Round.of(42, "lyon", number, {**PARAMETERS, **changes})


def fit(built: steps.Built, round_: steps.Round, **vectors: Vector) -> dict[str, Vector]:
    return steps.fit(built, rows(), round_, {"model": built.read(), **vectors})[0]


def test_first_weights_are_torchs_own() -> None:
    built = build(inputs=13)
    torch.manual_seed(42)
    linear = torch.nn.Linear(13, 1)
    assert np.array_equal(built.read(), torch.cat([linear.weight[0], linear.bias]).detach().numpy())


@pytest.mark.parametrize("chosen", [{"architecture": "linear"}, {"architecture": "mlp", "hidden": 5}])
def test_the_templates_layout_is_the_domains(chosen: dict[str, Any]) -> None:
    contract: Any = type("Contract", (), {"inputs": lambda self: 3})()
    wanted = layouts.of_model(layouts.Model(template="tabular"), contract, chosen)
    assert build(**chosen).layout == tuple((tensor.name, tensor.shape) for tensor in wanted)


def test_every_epoch_sees_every_row_once() -> None:
    seen = [list(chosen) for chosen in steps.batches(30, round_of(local_steps=24))]  # 8 batches an epoch
    assert [len(batch) for batch in seen[:8]] == [4] * 7 + [2]
    epochs = [[row for batch in seen[first : first + 8] for row in batch] for first in (0, 8, 16)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(30))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_rounds_go_on_where_the_last_one_stopped_without_having_run_it() -> None:
    whole = [list(chosen) for chosen in steps.batches(30, round_of(local_steps=50))]
    parts = [list(chosen) for number in (2, 1) for chosen in steps.batches(30, round_of(number))]
    assert parts[25:] + parts[:25] == whole


def test_sites_and_seeds_shuffle_apart() -> None:
    first = [list(b) for b in steps.batches(30, round_of())]
    assert first != [list(b) for b in steps.batches(30, steps.Round.of(42, "nice", 1, PARAMETERS))]
    assert first != [list(b) for b in steps.batches(30, steps.Round.of(43, "lyon", 1, PARAMETERS))]


def learner(build: Callable[..., Any] | None = None, **methods: Callable[..., Any]) -> type[Model]:
    def default(self: Model, inputs: int) -> Any:
        return torch.nn.Linear(inputs, 1)

    def loss(self: Model, model: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.mse_loss(model(x), y)

    return type("Odd", (Model,), {"build": build or default, "loss": loss, **methods})


class Dropout(Model):
    """Draws random numbers in each step, and keeps running statistics."""

    def build(self, inputs: int) -> Any:
        norm, drop = torch.nn.BatchNorm1d(inputs), torch.nn.Dropout(0.5)
        return torch.nn.Sequential(norm, drop, torch.nn.Linear(inputs, 1))

    def loss(self, model: Any, x: Any, y: Any) -> Any:
        return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)


@pytest.mark.parametrize("kind", [None, Dropout])
def test_a_repeated_round_gives_the_same_bytes(kind: type[Model] | None) -> None:
    first = fit(build(kind), round_of(2))["update"].tobytes()
    torch.rand(7)
    built = build(kind)
    start = built.read()
    steps.fit(built, rows(), round_of(1), {"model": start})  # another round in between leaves nothing behind
    again = steps.fit(built, rows(), round_of(2), {"model": start})[0]
    assert again["update"].tobytes() == first == fit(build(kind), round_of(2))["update"].tobytes()
    assert fit(build(kind), round_of(3))["update"].tobytes() != first


def by_hand(start: Vector, correct: Callable[[Float], Float], round_: steps.Round) -> Float:
    """Logistic regression by numpy in float64: y ← y − lr (∇f(y) + correct(y)), weights and then bias."""
    data = rows()
    y = start.astype(np.float64)
    for chosen in steps.batches(30, round_):
        x = np.column_stack([data.train_x[chosen], np.ones(len(chosen))]).astype(np.float64)
        gradient = x.T @ (1 / (1 + np.exp(-x @ y)) - data.train_y[chosen][:, 0]) / len(chosen)
        y = y - round_.learning_rate * (gradient + correct(y))
    return y


def test_fedavg_is_plain_sgd() -> None:
    built = build()
    start = built.read()
    assert fit(built, round_of())["update"] == pytest.approx(
        by_hand(start, np.zeros_like, round_of()) - start, abs=2e-6
    )


def test_fedprox_pulls_towards_the_model_that_came() -> None:
    """Li et al. 2020, eq. 2: the local objective is F(w) + mu/2 ‖w − w_t‖²."""
    built, round_ = build(), round_of(strategy="fedprox")
    start = built.read()
    wanted = by_hand(start, lambda y: 0.5 * (y - start), round_) - start
    found = fit(built, round_)["update"]
    assert found == pytest.approx(wanted, abs=2e-6)
    assert np.linalg.norm(found) < np.linalg.norm(fit(build(), round_of())["update"])


def test_scaffold_is_option_two_of_the_paper() -> None:
    """Karimireddy et al. 2020, algorithm 1: y ← y − lr (g − c_i + c); c_i⁺ = c_i − c + (x − y) / (K lr)."""
    built, round_ = build(), round_of(strategy="scaffold")
    start = built.read()
    control = np.array([0.1, -0.2, 0.3, -0.4], np.float32)
    local = np.array([-0.3, 0.1, 0.2, 0.05], np.float32)
    y = by_hand(start, lambda y: control.astype(float) - local, round_)
    found = fit(built, round_, control=control, local=local)
    assert found["update"] == pytest.approx(y - start, abs=2e-6)
    assert found["control"] == pytest.approx((local - control + (start - y) / (25 * 0.1)) - local, abs=2e-6)


def test_scaffold_leaves_statistics_without_a_control_variate() -> None:
    built = build(Dropout)
    zero = np.zeros_like(built.read())
    found = fit(built, round_of(strategy="scaffold"), control=zero, local=zero)
    names = [name for name, shape in built.layout for _ in range(tensors.size(((name, shape),)))]
    still = np.array([name.startswith("0.running") for name in names])
    assert still.sum() == 6
    assert found["update"][still].all()
    assert not found["control"][still].any()
    assert found["control"][~still].any()


def test_own_optimiser_and_scaffolds_refusal() -> None:
    class Signs:
        """Steps by the sign of the gradient."""

        def __init__(self, parameters: list[torch.nn.Parameter], rate: float) -> None:
            self.parameters, self.rate = parameters, rate

        @torch.no_grad()
        def step(self) -> None:
            for parameter in self.parameters:
                assert parameter.grad is not None
                parameter.sub_(self.rate * parameter.grad.sign())

    own = learner(optimizer=lambda self, model, rate: Signs(list(model.parameters()), rate))
    built = build(own)
    assert np.abs(fit(built, round_of(local_steps=1))["update"]) == pytest.approx(0.1)
    zero = np.zeros(4, np.float32)
    with pytest.raises(TrainerError, match="strategy"):
        fit(built, round_of(strategy="scaffold"), control=zero, local=zero)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("learner_invalid", learner(build=lambda self, inputs: "no module")),
        ("learner_invalid", learner(build=lambda self, inputs: torch.nn.Linear(inputs, 1).double())),
        ("learner_invalid", learner(build=lambda self, inputs: torch.nn.Identity())),
        ("learner_invalid", learner(loss=lambda self, model, x, y: 0.5)),
        ("learner_invalid", learner(loss=lambda self, model, x, y: model(x))),
        ("nan_loss", learner(loss=lambda self, model, x, y: model(x).sum() * float("nan"))),
        ("nan_loss", learner(loss=lambda self, model, x, y: -torch.log(0 * model(x).sum()))),
    ],
)
def test_a_wrong_learner(code: str, kind: type[Model]) -> None:
    with pytest.raises(TrainerError, match=code):
        fit(build(kind), round_of())


def test_a_model_that_leaves_the_finite_numbers() -> None:
    with pytest.raises(TrainerError, match="nan_update"):
        fit(
            build(learner(loss=lambda self, model, x, y: model(x).mean() * 1e37)),
            round_of(local_steps=1, learning_rate="1000"),
        )


def test_a_loss_broadcast_by_mistake_is_an_error() -> None:
    squeezed = learner(loss=lambda self, model, x, y: torch.nn.functional.mse_loss(model(x)[:, 0], y))
    with pytest.raises(UserWarning, match="target size"):
        fit(build(squeezed), round_of())


def test_scores_are_what_the_metrics_read() -> None:
    built = build()
    data = rows(inputs=3)
    scores = steps.evaluate(built, data, built.read())
    w = built.read().astype(np.float64)
    p = 1 / (1 + np.exp(-(data.test_x @ w[:3] + w[3])))
    y = data.test_y[:, 0]
    assert scores["correct"] == ((p > 0.5) == (y > 0.5)).sum()
    assert scores["loss"] == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)), abs=1e-6)
    assert scores["mse"] == pytest.approx(np.mean((p - y) ** 2), abs=1e-6)
    assert sum(scores["negatives"]) + sum(scores["positives"]) == scores["rows"] == 10
    words = metrics.words(("accuracy", "auc", "loss", "mse", "mae"), scores)
    exact = np.mean([(a > b) + (a == b) / 2 for a in p[y > 0.5] for b in p[y < 0.5]])
    assert words["auc.site"][0] == pytest.approx(exact, abs=1 / 64)


def test_scores_do_not_depend_on_how_many_rows_are_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build()
    whole = steps.evaluate(built, rows(), built.read())
    monkeypatch.setattr(steps, "CHUNK", 3)
    parts = steps.evaluate(built, rows(), built.read())
    assert parts.pop("loss") == pytest.approx(whole.pop("loss"))
    assert parts == whole


def test_regression_has_errors_and_no_classes() -> None:
    scores = steps.evaluate(build(task="regression"), rows(), np.zeros(4, np.float32))
    truth = rows().test_y[:, 0]
    assert scores == {"rows": 10, "loss": np.mean(truth**2), "mse": np.mean(truth**2), "mae": np.mean(truth)}
    metrics.words(metrics.default("regression"), scores)


@pytest.mark.parametrize(
    ("code", "predict"),
    [
        ("prediction_range", lambda self, model, x: model(x) + 2),
        ("nan_prediction", lambda self, model, x: model(x) * float("nan")),
        ("learner_invalid", lambda self, model, x: model(x)[:2]),
        ("learner_invalid", lambda self, model, x: [0.5] * len(x)),
    ],
)
def test_a_wrong_prediction(code: str, predict: Callable[..., Any]) -> None:
    built = build(learner(predict=predict))
    with pytest.raises(TrainerError, match=code):
        steps.evaluate(built, rows(), built.read())
