"""Each strategy against the equations of its paper, written again from the sites' side, in scalars.

The strategies see only sums; these loops see every site's model, as the papers do.
"""

import math
import struct
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.aggregation import strategies
from koinon.aggregation.strategies import Sums, base
from koinon.domain.errors import Failed, Invalid
from koinon.domain.manifest import STRATEGIES
from koinon.domain.parameters import Parameters

PARAMETERS: Parameters = {"server_learning_rate": "0.05", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"}
RATE, BETA1, BETA2, TAU = 0.05, 0.9, 0.99, 0.001


@dataclass
class Federation:
    """`sites` hospitals that answer a model x with a model y, `size` parameters, different rows each."""

    sites: int
    size: int
    seed: int
    random: np.random.Generator = field(init=False)
    rows: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.rows = [int(n) for n in self.random.integers(1, 1_000, self.sites)]

    def train(self, x: list[float]) -> list[list[float]]:
        """The sites' models y."""
        return [[value + float(self.random.normal(0, 0.1)) for value in x] for _ in range(self.sites)]

    def sums(self, x: list[float], models: list[list[float]], weights: list[int]) -> Sums:
        """What the hub opens."""
        update = np.zeros(self.size)
        for weight, y in zip(weights, models, strict=True):
            update += weight * (np.array(y) - np.array(x))
        return Sums(update, float(sum(weights)), self.sites, self.sites)


def start(size: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.linspace(-1, 1, size).astype(np.float32)


def test_fedavg_is_the_mean_of_the_models_weighted_by_rows() -> None:
    """McMahan et al. 2017, Algorithm 1: w_{t+1} = Σ_k (n_k / n) w^k_{t+1}."""
    federation = Federation(5, 7, seed=1)
    model = start(7)
    for _ in range(3):
        x = [float(value) for value in model]
        models = federation.train(x)
        n = sum(federation.rows)
        expected = [sum(n_k / n * w_k[j] for n_k, w_k in zip(federation.rows, models, strict=True)) for j in range(7)]
        sums = federation.sums(x, models, federation.rows)
        model, _ = strategies.get("fedavg").step(model, sums, {}, {"server_learning_rate": 1})
        np.testing.assert_allclose(model, expected, rtol=2e-6, atol=1e-7)


def test_fedprox_is_the_plain_mean_of_the_models_under_uniform_weighting() -> None:
    """Li et al. 2020, Algorithm 2: w^{t+1} = 1/K Σ_{k∈S_t} w_k^{t+1}."""
    federation = Federation(4, 6, seed=2)
    model = start(6)
    for _ in range(3):
        x = [float(value) for value in model]
        models = federation.train(x)
        expected = [math.fsum(w_k[j] for w_k in models) / len(models) for j in range(6)]
        sums = federation.sums(x, models, [1] * 4)
        model, _ = strategies.get("fedprox").step(model, sums, {}, {"server_learning_rate": 1})
        np.testing.assert_allclose(model, expected, rtol=2e-6, atol=1e-7)


def test_scaffold_moves_model_and_control_variate_as_algorithm_1() -> None:
    """Karimireddy et al. 2020, Algorithm 1, with option II for the sites' control variates:

    c_i⁺ = c_i − c + (x − y_i) / (K·η_l);  Δx = 1/|S| Σ (y_i − x);  Δc = 1/|S| Σ (c_i⁺ − c_i);
    x ← x + η_g·Δx;  c ← c + |S|/N·Δc. Of N = 6 members, 4 survive.
    """
    size, surviving, members, steps, local_rate, global_rate = 5, 4, 6, 10, 0.01, 0.5
    federation = Federation(surviving, size, seed=3)
    strategy = strategies.get("scaffold")
    model, state = start(size), strategies.initial(strategy, size)
    own = [[0.0] * size for _ in range(surviving)]
    x, c = [float(value) for value in model], [0.0] * size
    for _ in range(4):
        models = federation.train(x)
        changes = []
        for i, y in enumerate(models):
            following = [own[i][j] - c[j] + (x[j] - y[j]) / (steps * local_rate) for j in range(size)]
            changes.append([following[j] - own[i][j] for j in range(size)])
            own[i] = following
        sums = federation.sums(x, models, [1] * surviving)
        sums = Sums(sums.update, sums.weight, surviving, members, control=np.array(changes).sum(axis=0))
        model, state = strategy.step(model, sums, state, {"server_learning_rate": str(global_rate)})
        for j in range(size):
            dx = sum(y[j] - x[j] for y in models) / surviving
            dc = sum(change[j] for change in changes) / surviving
            x[j] += global_rate * dx
            c[j] += surviving / members * dc
        np.testing.assert_allclose(model, x, rtol=2e-6, atol=1e-6)
        np.testing.assert_allclose(state["control"], c, rtol=2e-6, atol=1e-6)


def test_scaffold_by_rows_weighs_model_and_control_variate_alike() -> None:
    """Sites of 1 and 3 rows give what the paper's rule gives for four sites of which three are copies of one."""
    strategy, random = strategies.get("scaffold"), np.random.default_rng(4)
    small, large, first, second = random.normal(0, 1, (4, 6))
    by_rows = Sums(small + 3 * large, 4, 2, 2, first + 3 * second)
    copies = Sums(small + large + large + large, 4, 4, 4, first + second + second + second)
    results = [strategy.step(start(6), sums, strategies.initial(strategy, 6), PARAMETERS) for sums in (by_rows, copies)]
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    np.testing.assert_allclose(results[0][1]["control"], results[1][1]["control"], rtol=1e-6)


def _second_moment(name: str, v: float, d: float) -> float:
    """Reddi et al. 2021, Algorithm 2, the three lines that differ."""
    if name == "fedadagrad":
        return v + d**2
    if name == "fedadam":
        return BETA2 * v + (1 - BETA2) * d**2
    difference = v - d**2
    sign = (difference > 0) - (difference < 0)
    return v - (1 - BETA2) * d**2 * sign


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
@given(sites=st.integers(1, 6), size=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_adaptive_strategies_follow_algorithm_2(name: str, sites: int, size: int, seed: int) -> None:
    """Reddi et al. 2021, Algorithm 2: Δ_t = 1/|S| Σ Δ_i; m_t = β₁ m_{t−1} + (1−β₁) Δ_t; v_t by name;
    x_{t+1} = x_t + η m_t / (√v_t + τ)."""
    federation = Federation(sites, size, seed)
    strategy = strategies.get(name)
    model, state = start(size), strategies.initial(strategy, size)
    x, m, v = [float(value) for value in model], [0.0] * size, [0.0] * size
    for _ in range(4):
        models = federation.train(x)
        model, state = strategy.step(model, federation.sums(x, models, [1] * sites), state, PARAMETERS)
        for j in range(size):
            d = sum(y[j] - x[j] for y in models) / sites
            m[j] = BETA1 * m[j] + (1 - BETA1) * d
            v[j] = _second_moment(name, v[j], d)
            x[j] += RATE * m[j] / (math.sqrt(v[j]) + TAU)
        np.testing.assert_allclose(state["m"], m, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(state["v"], v, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(model, x, rtol=1e-4, atol=1e-5)


def _single(value: float) -> float:
    """`value` rounded to float32."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


@pytest.mark.parametrize("name", ["fedadagrad", "fedadam", "fedyogi"])
def test_the_next_model_can_be_recomputed_to_the_bit_without_numpy(name: str) -> None:
    """Plain Python doubles, in the order of the docstring, give the same float32 in every element and round."""
    size = 300
    random = np.random.default_rng(5)
    strategy = strategies.get(name)
    model, state = start(size), strategies.initial(strategy, size)
    x, m, v = [float(value) for value in model], [0.0] * size, [0.0] * size
    for _ in range(3):
        update, weight = random.normal(0, 3, size), 123.0
        model, state = strategy.step(model, Sums(update, weight, 4, 4), state, PARAMETERS)
        for j in range(size):
            d = float(update[j]) / weight
            following_m = BETA1 * m[j] + (1 - BETA1) * d
            square = d * d
            if name == "fedadagrad":
                following_v = v[j] + square
            elif name == "fedadam":
                following_v = BETA2 * v[j] + (1 - BETA2) * square
            else:
                following_v = v[j] - (1 - BETA2) * square * math.copysign(1, v[j] - square)
            x[j] = _single(x[j] + RATE * following_m / (math.sqrt(following_v) + TAU))
            m[j], v[j] = _single(following_m), _single(following_v)
    assert [float(value) for value in model] == x
    assert [float(value) for value in state["v"]] == v


@pytest.mark.parametrize("name", STRATEGIES)
def test_blocks_do_not_change_a_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same step in blocks of 7 and as a whole."""
    random = np.random.default_rng(9)
    update, control = random.normal(0, 1, 50), random.normal(0, 1, 50)
    results = []
    for block in (7, 1_000):
        monkeypatch.setattr(base, "BLOCK", block)
        strategy = strategies.get(name)
        model, state = start(50), strategies.initial(strategy, 50)
        for _ in range(2):
            model, state = strategy.step(model, Sums(update, 3, 3, 4, control), state, PARAMETERS)
        results.append((model.tobytes(), {key: value.tobytes() for key, value in state.items()}))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step_writes_into_the_arrays_it_was_given(name: str) -> None:
    strategy = strategies.get(name)
    model, state = start(9), strategies.initial(strategy, 9)
    following, following_state = strategy.step(model, Sums(np.ones(9), 2, 3, 3, np.ones(9)), state, PARAMETERS)
    assert following is model
    assert all(following_state[key] is state[key] for key in state)
    assert not np.array_equal(model, start(9))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step_refuses_what_does_not_fit(name: str) -> None:
    strategy = strategies.get(name)

    def step(update: int = 4, control: int = 4, weight: float = 1, parameters: Parameters = PARAMETERS) -> None:
        sums = Sums(np.ones(update), weight, 3, 3, np.ones(control))
        strategy.step(start(4), sums, strategies.initial(strategy, 4), parameters)

    step()
    with pytest.raises(Invalid, match="update has the shape"):
        step(update=5)
    with pytest.raises(Invalid, match="control sum has the shape"):
        step(control=3)
    with pytest.raises(Invalid, match="add up to nothing"):
        step(weight=0)
    with pytest.raises(Invalid, match="server_learning_rate"):
        step(parameters={})


def test_state_that_is_missing_or_another_size_is_refused() -> None:
    sums = Sums(np.ones(4), 1, 3, 3)
    with pytest.raises(Invalid, match="lacks m, v"):
        strategies.get("fedadam").step(start(4), sums, {}, PARAMETERS)
    with pytest.raises(Invalid, match="m has the shape"):
        strategies.get("fedadam").step(
            start(4), sums, {"m": np.zeros(3, np.float32), "v": np.zeros(4, np.float32)}, PARAMETERS
        )
    scaffold = strategies.get("scaffold")
    with pytest.raises(Invalid, match="control variates"):
        scaffold.step(start(4), sums, strategies.initial(scaffold, 4), PARAMETERS)


def test_a_model_that_leaves_float32_fails_instead_of_becoming_infinite() -> None:
    with pytest.raises(Failed, match="no longer finite"):
        strategies.get("fedavg").step(start(4), Sums(np.full(4, 1e39), 1, 3, 3), {}, {"server_learning_rate": 1})


def test_every_strategy_of_the_manifest_exists_and_another_is_named() -> None:
    for name in STRATEGIES:
        strategies.get(name)
    with pytest.raises(Invalid, match="fedavg, fedprox, scaffold"):
        strategies.get("fedsgd")
