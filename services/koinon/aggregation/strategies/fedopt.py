"""What FedAdagrad, FedAdam and FedYogi share: Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan,
"Adaptive Federated Optimization", ICLR 2021, Algorithm 2."""

from abc import ABC, abstractmethod

import numpy as np

from koinon.aggregation.strategies import base
from koinon.aggregation.strategies.base import State, Sums, Vector, Wide
from koinon.domain.parameters import Parameters


class FedOpt(ABC):
    """m ← β₁·m + (1−β₁)·Δ, v by the subclass, x ← x + η · m / (√v + τ).

    No bias correction, and m and v start at zero; the paper allows any v₋₁ ≥ τ², the benchmark that
    publishes figures on the demo's data (FLamby, arXiv 2210.04620) starts at zero.
    """

    kept: tuple[str, ...] = ("m", "v")
    shared: tuple[str, ...] = ()

    @abstractmethod
    def second(self, v: Wide, square: Wide, beta2: float) -> Wide:
        """The next v from v and Δ², element by element."""

    def step(self, model: Vector, sums: Sums, state: State, parameters: Parameters) -> tuple[Vector, State]:
        base.check(model, sums, state, self)
        rate, beta1, beta2, tau = (
            base.number(parameters, name) for name in ("server_learning_rate", "beta1", "beta2", "tau")
        )
        for block in base.blocks(model.size):
            delta = base.mean(sums.update, sums, block)
            m = beta1 * state["m"][block].astype(np.float64) + (1 - beta1) * delta
            v = self.second(state["v"][block].astype(np.float64), delta * delta, beta2)
            base.store(state["m"], block, m)
            base.store(state["v"], block, v)
            base.store(model, block, model[block] + rate * m / (np.sqrt(v) + tau))
        return model, state
