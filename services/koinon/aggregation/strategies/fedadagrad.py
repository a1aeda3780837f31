"""FedAdagrad: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2."""

from koinon.aggregation.strategies.base import Wide
from koinon.aggregation.strategies.fedopt import FedOpt


class FedAdagrad(FedOpt):
    """v ← v + Δ²."""

    def second(self, v: Wide, square: Wide, beta2: float) -> Wide:
        return v + square
