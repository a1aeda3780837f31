"""The exact names, shapes and sizes of a model, and the one vector that an attempt masks.

The vector is update ‖ control variates ‖ weight ‖ clipped ‖ metrics, all words of a ring of 2^32
(PROTECTION.md, One vector). Every part can compute it beforehand from the manifest, without torch.
"""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from koinon.domain.contract import Contract
from koinon.domain.errors import Invalid
from koinon.domain.ids import Hash
from koinon.domain.keys import Wire
from koinon.domain.parameters import Parameters


class Tensor(Wire):
    """A float32 tensor: its name in the model's state_dict and its shape."""

    name: str = Field(min_length=1, max_length=256)
    shape: tuple[int, ...]

    def size(self) -> int:
        return math.prod(self.shape)


Layout = tuple[Tensor, ...]


class Model(Wire):
    """What runs at the sites: an audited template, or a researcher's package with its declared layout."""

    template: Literal["tabular", "package"]
    package: Hash | None = None
    layout: Layout = ()


def size(layout: Sequence[Tensor]) -> int:
    """Parameters in all."""
    return sum(tensor.size() for tensor in layout)


def of_model(model: Model, contract: Contract, parameters: Parameters) -> Layout:
    """The layout that a run with `parameters` trains; tensors in the order of the flat vector."""
    if model.template == "package":
        if not model.package or not model.layout:
            raise Invalid("A package needs its hash and its layout.", where="manifest.model")
        return model.layout
    inputs = contract.inputs()
    if parameters.get("architecture", "linear") == "linear":
        return (Tensor(name="weight", shape=(1, inputs)), Tensor(name="bias", shape=(1,)))
    hidden = int(parameters["hidden"])
    return (
        Tensor(name="0.weight", shape=(hidden, inputs)),
        Tensor(name="0.bias", shape=(hidden,)),
        Tensor(name="2.weight", shape=(1, hidden)),
        Tensor(name="2.bias", shape=(1,)),
    )


class Segment(Wire):
    """`size` words of the vector. L2 norm (`l2`) or each word (`each`) is clipped to `bound`.

    `whole` words are integers with step 1; others have the step bound / Q of the ring.
    """

    name: str
    size: int
    bound: str
    clip: Literal["l2", "each"] = "each"
    whole: bool = False
