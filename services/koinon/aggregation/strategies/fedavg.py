"""FedAvg: McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, Algorithm 1."""

from koinon.aggregation.strategies import base
from koinon.aggregation.strategies.base import State, Sums, Vector
from koinon.domain.parameters import Parameters


class FedAvg:
    """x ← x + η · Σ wᵢ Δᵢ / Σ wᵢ. With the server's learning rate η = 1 this is Σ (wᵢ / w) yᵢ of the paper."""

    kept: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    def step(self, model: Vector, sums: Sums, state: State, parameters: Parameters) -> tuple[Vector, State]:
        base.check(model, sums, state, self)
        rate = base.number(parameters, "server_learning_rate")
        for block in base.blocks(model.size):
            base.store(model, block, model[block] + rate * base.mean(sums.update, sums, block))
        return model, state
