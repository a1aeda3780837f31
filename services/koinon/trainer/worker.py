"""The training actor: the process that runs research code; one of several that train together, or the only one.

Every method answers {"answer": …} or {"trouble": …}: an exception of research code never travels as an
object, since to receive one would be to unpickle it.
"""

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koinon.trainer import averaging, errors, packages, peers, steps
from koinon.trainer.actor import LOST, Spec
from koinon.trainer.errors import TrainerError
from koinon.trainer.tensors import Layout, Rows, Vector


class Worker:
    """The constructor warms torch up, since first operations take seconds in a fresh process."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._loaded = packages.template()
        self._peers: peers.Peers = peers.Alone()
        self._listener: socket.socket | None = None
        self._device = "cuda" if spec.gpu and torch.cuda.is_available() else "cpu"
        steps.one_thread()
        for strategy in ("fedprox", "scaffold"):
            _warm_up(strategy)

    def load(self, package: bytes | None) -> dict[str, Any]:
        """Imports the package, if there is one. Answers None."""

        def work() -> None:
            if package is not None:
                self._loaded = packages.load(package, _fresh_folder(self._spec.scratch))

        return self._guarded(work, ())

    def leave(self) -> dict[str, Any]:
        """Trains alone from now on. Answers None."""
        if isinstance(self._peers, peers.Connected):
            self._peers.close()
        self._peers = peers.Alone()
        return {"answer": None}

    def listen(self, address: str) -> dict[str, Any]:
        """Lets other ranks call at this machine's `address`. Answers the port."""

        def work() -> int:
            self._listener = peers.listen(address)
            return int(self._listener.getsockname()[1])

        return self._guarded(work, ())

    def join(self, rank: int, addresses: list[peers.Address], secret: bytes) -> dict[str, Any]:
        """Meets the other ranks, each at its address. Answers None."""

        def work() -> None:
            listener, self._listener = self._listener, None
            if listener is None:
                raise TrainerError(LOST, "join comes after listen")
            self._peers = peers.Connected(rank, addresses, listener, secret)

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
        """Scores the received model, then trains. Answers (vectors by prefix, report); None if not rank 0."""

        def work() -> tuple[dict[str, Vector], dict[str, Any]] | None:
            round_ = steps.Round.of(call["seed"], call["site"], call["round"], call["parameters"])
            built = self._matching(call, layout)
            first = self._peers.rank == 0
            scores = steps.evaluate(built, rows, vectors["model"]) if first else {}
            answer, seconds = steps.fit(built, rows, round_, vectors, self._gradients())
            if self._peers.size > 1 and not self._peers.agree(_digest(answer)):
                raise TrainerError("learner_invalid", "the ranks end with different models: the learner keeps state")
            report = {"rows": len(rows.train_y), "seconds": seconds, "evaluation": scores}
            return (answer, report) if first else None

        return self._guarded(work, _sizes(layout, call))

    def evaluate(self, call: Mapping[str, Any], layout: Layout, vector: Vector, rows: Rows) -> dict[str, Any]:
        """Answers a report without training."""

        def work() -> dict[str, Any]:
            built = self._matching(call, layout)
            scores = steps.evaluate(built, rows, vector)
            return {"rows": len(rows.train_y), "seconds": 0.0, "evaluation": scores}

        return self._guarded(work, _sizes(layout, call))

    def _gradients(self) -> steps.Gradients:
        return steps.whole if self._spec.parts == 1 else averaging.Averaged(self._spec.parts, self._peers)

    def _build(self, parameters: Mapping[str, int | str], seed: int) -> steps.Built:
        task = steps.Task(self._spec.inputs, self._spec.kind, parameters)
        return steps.Built(self._loaded.learner, task, seed, self._device)

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


def _digest(answer: Mapping[str, Vector]) -> bytes:
    found = hashlib.sha256()
    for vector in answer.values():
        found.update(np.ascontiguousarray(vector).data)
    return found.digest()


def _fresh_folder(scratch: Path) -> Path:
    """An empty folder below `scratch`, named after this process; those of dead processes go."""
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in scratch.glob("package-*-*"):
        try:
            os.kill(int(old.name.split("-")[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(old, ignore_errors=True)
        except (ValueError, PermissionError):
            continue
    return Path(tempfile.mkdtemp(prefix=f"package-{os.getpid()}-", dir=scratch))


def _warm_up(strategy: str) -> None:
    x, y = np.zeros((4, 2), np.float32), np.array([[0], [1], [0], [1]], np.float32)
    parameters: dict[str, int | str] = {"architecture": "mlp", "hidden": 2}
    built = steps.Built(packages.template().learner, steps.Task(2, "classification", parameters), 0)
    zero = np.zeros_like(built.read())
    vectors = {"model": built.read(), "control": zero, "local": zero}
    rows = Rows(x, y, x, y)
    steps.fit(built, rows, steps.Round(0, "warm-up", 0, 2, 2, 0.01, strategy, 0.01), vectors)
    steps.evaluate(built, rows, vectors["model"])
