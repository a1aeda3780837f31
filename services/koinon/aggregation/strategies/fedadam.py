"""FedAdam: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2."""

from koinon.aggregation.strategies.base import Wide
from koinon.aggregation.strategies.fedopt import FedOpt


class FedAdam(FedOpt):
    """v ← β₂·v + (1−β₂)·Δ²."""

    def second(self, v: Wide, square: Wide, beta2: float) -> Wide:
        return beta2 * v + (1 - beta2) * square
