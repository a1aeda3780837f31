"""Tables: a linear model or a perceptron with one hidden layer; classification or regression."""

import torch

from koinon.learner import Model


class Tabular(Model):
    """`architecture` (linear, mlp) and `hidden` (units) are parameters of the run.

    Loss: binary cross-entropy of the logit, or the mean squared error.
    """

    def build(self, inputs: int) -> torch.nn.Module:
        if self.parameters.get("architecture", "linear") == "linear":
            return torch.nn.Linear(inputs, 1)
        hidden = int(self.parameters["hidden"])
        return torch.nn.Sequential(torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))

    def loss(self, model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.task == "classification":
            return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
        return torch.nn.functional.mse_loss(model(x), y)
