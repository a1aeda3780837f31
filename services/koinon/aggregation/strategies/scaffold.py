"""Scaffold: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated
Learning", ICML 2020, Algorithm 1, lines 16 and 17."""

from koinon.aggregation.strategies import base
from koinon.aggregation.strategies.base import State, Sums, Vector
from koinon.domain.errors import Invalid
from koinon.domain.parameters import Parameters


class Scaffold:
    """x ← x + η · Σ wᵢ Δyᵢ / Σ wᵢ and c ← c + |S|/N · Σ wᵢ Δcᵢ / Σ wᵢ: |S| sites survived of the project's N members.

    The paper weighs all sites alike, which is the manifest's weighting "uniform". With "rows" model and control variate
    are weighed alike, so that both aim at the mean over rows. The control variate c goes to the sites with the model.
    """

    kept: tuple[str, ...] = ()
    shared: tuple[str, ...] = ("control",)

    def step(self, model: Vector, sums: Sums, state: State, parameters: Parameters) -> tuple[Vector, State]:
        base.check(model, sums, state, self)
        if sums.control is None:
            raise Invalid("Scaffold needs the sum of the control variates.")
        rate = base.number(parameters, "server_learning_rate")
        control, share = state["control"], sums.sites / sums.members
        for block in base.blocks(model.size):
            base.store(model, block, model[block] + rate * base.mean(sums.update, sums, block))
            base.store(control, block, control[block] + share * base.mean(sums.control, sums, block))
        return model, state
