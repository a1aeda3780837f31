"""What a server-side strategy is: one element-wise step from the opened sums to the next model.

Only + − × ÷ √ in float64 on each element, rounded to float32 once: IEEE 754 fixes every bit of that, so any
site can recompute the next model from the same sums (PROTECTION.md, Hub honesty is checkable).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from koinon.domain import manifest
from koinon.domain.errors import Failed, Invalid
from koinon.domain.parameters import Parameters

Vector = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
State = dict[str, Vector]

BLOCK = 65_536  # elements a step works on at once: a few float64 temporaries of it stay in the L2 cache


@dataclass(frozen=True)
class Sums:
    """What the masked vector opened to: sums over the surviving sites, nothing of a single one.

    `update` is Σ clip(w·Δ) with Δ = y − x (float32 or float64, D elements), `weight` is Σ w, `control` is
    Σ clip(w·Δc) of strategies that send one. `sites` survived; the project has `members`.
    """

    update: npt.NDArray[np.floating]
    weight: float
    sites: int
    members: int
    control: npt.NDArray[np.floating] | None = None


class Strategy(Protocol):
    """One per file. `kept` names the state that stays at the hub, `shared` what sites receive with the model."""

    kept: tuple[str, ...]
    shared: tuple[str, ...]

    def step(self, model: Vector, sums: Sums, state: State, parameters: Parameters) -> tuple[Vector, State]:
        """The next model and state, written into the arrays given. `state` has every name of kept and shared.

        Raises Invalid if sizes differ or the weights add up to nothing, Failed if the model leaves the range of
        float32; the arrays are void then.
        """
        ...


def initial(strategy: Strategy, size: int) -> State:
    """The state before the first round: zeros."""
    return {name: np.zeros(size, np.float32) for name in (*strategy.kept, *strategy.shared)}


def number(parameters: Parameters, name: str) -> float:
    """A parameter as float64. Raises Invalid if the run has none of this name."""
    if name not in parameters:
        raise Invalid("The strategy needs this parameter.", where=f"parameters.{name}")
    return manifest.decimal(str(parameters[name]))


def check(model: Vector, sums: Sums, state: State, strategy: Strategy) -> None:
    """Raises Invalid unless everything has the model's size and the weights add up to something."""
    given = {"update": sums.update, **({} if sums.control is None else {"control sum": sums.control}), **state}
    for name, vector in given.items():
        if vector.shape != model.shape:
            raise Invalid(f"The {name} has the shape {list(vector.shape)}, the model {list(model.shape)}.")
    missing = set(strategy.kept + strategy.shared) - set(state)
    if missing:
        raise Invalid(f"The optimiser state lacks {', '.join(sorted(missing))}.")
    if not sums.weight > 0:
        raise Invalid("The weights of the surviving sites add up to nothing.", todo="Check the sites' row counts.")


def blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def mean(total: npt.NDArray[np.floating], sums: Sums, block: slice) -> Wide:
    """The federation's mean in `block` of what `total` (the update or the control variates of `sums`) sums: / Σ w."""
    return total[block].astype(np.float64) / sums.weight


def store(target: Vector, block: slice, values: Wide) -> None:
    """`values` rounded to float32 into `target`. Raises Failed if one is not finite there."""
    with np.errstate(over="ignore", invalid="ignore"):
        target[block] = values
    if not np.isfinite(target[block]).all():
        raise Failed("The model is no longer finite.", todo="Lower the learning rates.")
