"""The process that trains, without Ray around it."""

import subprocess
import sys
from pathlib import Path

import pytest

from koinon.trainer import packages, worker
from koinon.trainer.actor import Spec
from tests.services.trainers import LEARNER, zipped


def ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_package_is_unpacked_beside_those_of_the_living(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, packages.MODULE, sys)  # so that it goes afterwards
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    scratch = tmp_path / "made" / "here"
    made = worker.Worker(Spec(None, scratch, 3, "classification", frozenset()))
    assert made.load(None) == {"answer": None}
    assert not scratch.exists()
    assert made.load(zipped(LEARNER)) == {"answer": None}
    (own,) = scratch.iterdir()
    assert (own / packages.MODULE).with_suffix(".py").read_text() == LEARNER
    dead, other = scratch / f"package-{ended()}-x", scratch / "package-of-others"
    for folder in (dead, other):
        folder.mkdir()
    assert made.load(zipped(LEARNER)) == {"answer": None}
    assert {own, other} < set(scratch.iterdir())
    assert not dead.exists()


def test_ranks_that_left_train_alone(tmp_path: Path) -> None:
    made = worker.Worker(Spec(None, tmp_path, 3, "classification", frozenset()))
    assert made.join(0, [("127.0.0.1", 1)], b"")["trouble"]["code"] == "peer_lost"  # it does not listen
    assert made.listen("127.0.0.1")["answer"] > 0
    assert made.join(0, [("127.0.0.1", 1)], b"") == {"answer": None}  # a meeting of one
    assert made.leave() == {"answer": None}
