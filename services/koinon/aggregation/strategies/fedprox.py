"""FedProx: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks",
MLSys 2020, Algorithm 2."""

from koinon.aggregation.strategies.fedavg import FedAvg


class FedProx(FedAvg):
    """The hub averages as FedAvg does; the proximal term μ/2 · ‖y − x‖² is in the sites' local objective."""
