"""What a researcher writes: one subclass of `Model` in a file `model.py`.

    import koinon, torch

    class Risk(koinon.Model):
        def build(self, inputs):
            return torch.nn.Linear(inputs, 1)

        def loss(self, model, x, y):
            return torch.nn.functional.mse_loss(model(x), y)

`build` and `loss` are needed; `predict` and `optimizer` have defaults. This module imports no torch, so
that `import koinon` stays light; tensors and modules are therefore typed as Any.
"""

from collections.abc import Mapping
from typing import Any


class Model:
    """A learner. A fresh instance is made for every round: keep nothing on `self` from one to the next.

    Every floating-point entry of the built module's `state_dict` must be float32; all of them are trained
    and shared. Integer buffers (a counter of batches, say) stay at the value that `build` gives them.

    A hospital may grant several workers. A batch is then cut into parts, one for each worker that its Grant
    allows, and their gradients are averaged with their rows as weights: the same code, as long as the loss is
    a mean over rows. What looks at a whole batch, as batch normalisation does, sees a part; a part may be a
    single row, so choose batches of some rows a worker. Do not use torch.distributed: Koinon connects the workers.
    """

    task: str = "classification"
    """"classification" or "regression", as the data contract says. Set before `build` is called."""

    parameters: Mapping[str, int | str] = {}
    """The run's parameters; a real number is a decimal string. Set before `build` is called."""

    def build(self, inputs: int) -> Any:
        """A torch.nn.Module over `inputs` features. The run's seed is set just before the call."""
        raise NotImplementedError("build(inputs) returns a torch.nn.Module")

    def loss(self, model: Any, x: Any, y: Any) -> Any:
        """The mean loss of a batch's rows, a scalar tensor: `x` is float32 (rows, inputs), `y` float32 (rows, 1).

        A mean, never a sum: batches differ in size, and so do the parts that several workers share.
        """
        raise NotImplementedError("loss(model, x, y) returns a scalar tensor")

    def predict(self, model: Any, x: Any) -> Any:
        """(rows,) or (rows, 1): the probability of the positive class, or the predicted value.

        As it stands, the logistic function of the module's output, or in regression the output itself.
        """
        output = model(x)
        return output.sigmoid() if self.task == "classification" else output

    def optimizer(self, model: Any, learning_rate: float) -> Any:
        """A torch.optim.Optimizer, made anew each round; None for plain SGD. Scaffold needs plain SGD."""
        return None
