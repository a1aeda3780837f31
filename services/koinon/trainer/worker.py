"""The training actor: the one process that runs research code.

Every method answers {"answer": …} or {"trouble": …}: an exception of research code never travels as an
object, since to receive one would be to unpickle it.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from koinon.trainer import errors, packages, steps
from koinon.trainer.actor import Spec
from koinon.trainer.errors import TrainerError
from koinon.trainer.tensors import Layout, Rows, Vector


class Worker:
    """The constructor warms torch up, since first operations take seconds in a fresh process."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._loaded = packages.template()
        steps.one_thread()
        for strategy in ("fedprox", "scaffold"):
            _warm_up(strategy)

    def load(self) -> dict[str, Any]:
        """Imports the package, if there is one. Answers None."""

        def work() -> None:
            if self._spec.package is not None:
                self._loaded = packages.load(self._spec.package, self._spec.scratch)

        return self._guarded(work, ())

    def ping(self) -> dict[str, Any]:
        return {"answer": None}

    def init(self, seed: int, parameters: Mapping[str, int | str]) -> dict[str, Any]:
        """Answers (layout, vector) of the first weights."""

        def work() -> tuple[Layout, Vector]:
            built = self._build(parameters, seed)
            return built.layout, built.read()

        return self._guarded(work, ())

    def fit(self, call: Mapping[str, Any], layout: Layout, vectors: Mapping[str, Vector], rows: Rows) -> dict[str, Any]:
        """Scores the received model, then trains. Answers (vectors by prefix, report)."""

        def work() -> tuple[dict[str, Vector], dict[str, Any]]:
            round_ = steps.Round.of(call["seed"], call["site"], call["round"], call["parameters"])
            built = self._matching(call, layout)
            scores = steps.evaluate(built, rows, vectors["model"])
            answer, seconds = steps.fit(built, rows, round_, vectors)
            return answer, {"rows": len(rows.train_y), "seconds": seconds, "evaluation": scores}

        return self._guarded(work, _sizes(layout, call))

    def evaluate(self, call: Mapping[str, Any], layout: Layout, vector: Vector, rows: Rows) -> dict[str, Any]:
        """Answers a report without training."""

        def work() -> dict[str, Any]:
            built = self._matching(call, layout)
            scores = steps.evaluate(built, rows, vector)
            return {"rows": len(rows.train_y), "seconds": 0.0, "evaluation": scores}

        return self._guarded(work, _sizes(layout, call))

    def _build(self, parameters: Mapping[str, int | str], seed: int) -> steps.Built:
        return steps.Built(self._loaded.learner, steps.Task(self._spec.inputs, self._spec.kind, parameters), seed)

    def _matching(self, call: Mapping[str, Any], layout: Layout) -> steps.Built:
        """A fresh learner whose state has the layout of the model that came. Raises TrainerError layout."""
        built = self._build(call["parameters"], call["seed"])
        if built.layout != layout:
            pairs = list(zip(layout, built.layout, strict=False))
            sent, own = next(((a, b) for a, b in pairs if a != b), (("", (len(layout),)), ("", (len(built.layout),))))
            text = f"the model that came has {sent}, the learner builds {own}"
            raise TrainerError("layout", text, names=[sent[0]] if sent[0] else [], shapes=[sent[1], own[1]])
        return built

    def _guarded(self, work: Callable[[], Any], sizes: Collection[int]) -> dict[str, Any]:
        known = {0, 1, self._spec.inputs, *self._spec.sizes, *sizes}
        try:
            return {"answer": work()}
        except BaseException as error:
            code = "out_of_memory" if isinstance(error, MemoryError) else "learner_error"
            trouble = errors.of_learner(error, self._loaded.root, self._loaded.files, known, code=code)
            return {"trouble": trouble.to_wire()}


def _sizes(layout: Layout, call: Mapping[str, Any]) -> set[int]:
    """Dimensions that the other side has sent itself."""
    batch = call["parameters"].get("batch_size", 1)
    return {int(batch), *(size for _, shape in layout for size in shape)}


def _warm_up(strategy: str) -> None:
    x, y = np.zeros((4, 2), np.float32), np.array([[0], [1], [0], [1]], np.float32)
    parameters: dict[str, int | str] = {"architecture": "mlp", "hidden": 2}
    built = steps.Built(packages.template().learner, steps.Task(2, "classification", parameters), 0)
    zero = np.zeros_like(built.read())
    vectors = {"model": built.read(), "control": zero, "local": zero}
    rows = Rows(x, y, x, y)
    steps.fit(built, rows, steps.Round(0, "warm-up", 0, 2, 2, 0.01, strategy, 0.01), vectors)
    steps.evaluate(built, rows, vectors["model"])
