"""The gradient of a batch out of its parts, computed by one rank or by many: the same bytes either way.

Each part starts from the same buffers and from random numbers of its own, so it does not matter who
computes it and what came before. Gradients, and what forward passes leave in float32 buffers (running
means, say), are averaged with the numbers of rows as weights. Other buffers, counters for instance, stay as
a rank's own last part left them.
"""

from collections.abc import Iterator

import torch

from koinon.trainer import parts, steps
from koinon.trainer.parts import Numbers
from koinon.trainer.peers import Alone, Peers
from koinon.trainer.tensors import Rows


class Averaged:
    """A steps.Gradients over `most` parts, shared out among `peers`."""

    def __init__(self, most: int, peers: Peers | None = None) -> None:
        self._most, self._peers = most, peers or Alone()

    def __call__(self, built: steps.Built, rows: Rows, chosen: Numbers, round_: steps.Round, step: int) -> None:
        pieces = parts.cut(chosen, self._most)
        mine = parts.share(len(pieces), self._peers.rank, self._peers.size)
        found = _Found(built)

        def compute(number: int) -> None:
            found.reset()
            steps.seed_all(steps.derive(round_.seed, round_.site, "part", step, number))
            steps.backward(built, rows, pieces[number])

        def own() -> Iterator[torch.Tensor]:
            for number in mine:
                compute(number)
                yield found.weighted(len(pieces[number]) / len(chosen))

        if not mine:
            compute(0)  # for its counters; it adds nothing
        total = self._peers.total(own(), found.length, len(pieces))
        found.replace(total)
        # An optimiser that draws random numbers draws the same ones on all ranks.
        steps.seed_all(steps.derive(round_.seed, round_.site, "step", step))


class _Found:
    """What a part leaves in a module, as one vector: gradients, changes of float32 buffers, and a 1 for each
    parameter that has a gradient at all."""

    def __init__(self, built: steps.Built) -> None:
        self._parameters = [p for p in built.module.parameters() if p.requires_grad]
        self._buffers = [(buffer, buffer.clone()) for buffer in built.module.buffers()]
        self._averaged = [(buffer, before) for buffer, before in self._buffers if buffer.dtype == torch.float32]
        tensors = (*self._parameters, *(buffer for buffer, _ in self._averaged))
        self._sizes = [*(tensor.numel() for tensor in tensors), len(self._parameters)]
        self.length = sum(self._sizes)
        self._vector = torch.zeros(self.length, device=built.device)

    def reset(self) -> None:
        """The module as it was before the step's first part."""
        for parameter in self._parameters:
            parameter.grad = None
        for buffer, before in self._buffers:
            buffer.copy_(before)

    def weighted(self, weight: float) -> torch.Tensor:
        """What the last part left, times `weight`. The next call overwrites it."""
        *pieces, marks = self._vector.split_with_sizes(self._sizes)
        gradients, changes = pieces[: len(self._parameters)], pieces[len(self._parameters) :]
        for piece, parameter in zip(gradients, self._parameters, strict=True):
            if parameter.grad is None:
                piece.zero_()
            else:
                piece.copy_(parameter.grad.to_dense().reshape(-1))
        for piece, (buffer, before) in zip(changes, self._averaged, strict=True):
            # What stays the same stays so to the bit, an infinity in a mask too.
            piece.copy_(torch.where(buffer == before, 0.0, buffer - before).reshape(-1))
        marks.copy_(torch.tensor([float(parameter.grad is not None) for parameter in self._parameters]))
        return self._vector.mul_(weight)

    def replace(self, total: torch.Tensor) -> None:
        """Puts the weighted sum in the place of what the parts left."""
        *pieces, marks = total.to(self._vector.device).split_with_sizes(self._sizes)
        gradients, changes = pieces[: len(self._parameters)], pieces[len(self._parameters) :]
        for piece, parameter, mark in zip(gradients, self._parameters, marks.tolist(), strict=True):
            parameter.grad = piece.view(parameter.shape) if mark else None
        for piece, (buffer, before) in zip(changes, self._averaged, strict=True):
            buffer.copy_(before).add_(piece.view(buffer.shape))
