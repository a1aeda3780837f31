"""FedYogi: Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2."""

import numpy as np

from koinon.aggregation.strategies.base import Wide
from koinon.aggregation.strategies.fedopt import FedOpt


class FedYogi(FedOpt):
    """v ← v − (1−β₂)·Δ²·sign(v−Δ²)."""

    def second(self, v: Wide, square: Wide, beta2: float) -> Wide:
        return v - (1 - beta2) * square * np.sign(v - square)
