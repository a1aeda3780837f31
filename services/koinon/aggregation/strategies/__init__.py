"""Server-side strategies, one file each: `strategies.get(name).step(...)`."""

from koinon.aggregation.strategies import fedadagrad, fedadam, fedavg, fedprox, fedyogi, scaffold
from koinon.aggregation.strategies.base import State, Strategy, Sums, Vector, initial
from koinon.domain.errors import Invalid

_ALL: dict[str, Strategy] = {
    "fedavg": fedavg.FedAvg(),
    "fedprox": fedprox.FedProx(),
    "scaffold": scaffold.Scaffold(),
    "fedadam": fedadam.FedAdam(),
    "fedyogi": fedyogi.FedYogi(),
    "fedadagrad": fedadagrad.FedAdagrad(),
}

__all__ = ["State", "Strategy", "Sums", "Vector", "get", "initial"]


def get(name: str) -> Strategy:
    """Raises Invalid that lists the strategies there are."""
    if name not in _ALL:
        raise Invalid(
            f'There is no strategy "{name}".', where="parameters.strategy", todo=f"There are {', '.join(_ALL)}."
        )
    return _ALL[name]
