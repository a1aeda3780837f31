"""What crosses about an exception of research code, when that code tries to get records out."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from koinon.domain import wire
from koinon.trainer import errors, packages
from koinon.trainer.errors import TrainerError

CODE = """
import torch

def plain(row):
    raise ValueError(f"patient {row}")

def named(row):
    raise type(f"Patient{row}", (KeyError,), {})("x")

def torch_like(row):
    raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({row}x145 and 13x1)")

def forged_file(row):
    exec(compile("raise ValueError", f"{ROOT}/patient-{row}.py", "exec"))

def forged_line(row):
    exec(compile("\\n" * 6_300 + "raise ValueError", f"{ROOT}/model.py", "exec"))

def real_shapes(row):
    torch.zeros(4, 12) @ torch.zeros(13, 1)

def broadcast(row):
    torch.nn.functional.binary_cross_entropy(torch.zeros(4, 1), torch.zeros(4))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(CODE)
    return tmp_path.resolve()


def raised(root: Path, function: str, *, known: frozenset[int] = frozenset({4, 13, 1})) -> TrainerError:
    names: dict[str, Any] = {"ROOT": str(root)}
    exec(compile(CODE, str(root / "model.py"), "exec"), names)
    try:
        names[function](63)
    except Exception as error:
        return errors.of_learner(error, root, frozenset({"model.py"}), known)
    raise AssertionError(function)


@pytest.mark.parametrize("function", ["plain", "named", "torch_like", "forged_file", "forged_line"])
def test_no_value_crosses(root: Path, function: str) -> None:
    crossing = raised(root, function).crossing()
    assert "63" not in str({**crossing, "incident": ""})
    wire.Trouble.of(crossing)  # and it has the form that the wire takes


@pytest.mark.parametrize(
    ("function", "code", "error", "line"),
    [
        ("plain", "learner_error", "ValueError", "model.py:5"),
        ("named", "learner_error", "KeyError", "model.py:8"),
        ("forged_file", "learner_error", "ValueError", "model.py:14"),
        ("forged_line", "learner_error", "ValueError", "model.py:17"),
        ("real_shapes", "shape", "RuntimeError", "model.py:20"),
        ("broadcast", "shape", "ValueError", "model.py:23"),
    ],
)
def test_class_and_place_cross(root: Path, function: str, code: str, error: str, line: str) -> None:
    found = raised(root, function)
    assert (found.code, found.error, found.place) == (code, error, line)


def test_shapes_cross_as_far_as_their_sizes_are_known(root: Path) -> None:
    assert raised(root, "real_shapes").shapes == ((4, errors.UNKNOWN_SIZE), (13, 1))
    assert raised(root, "real_shapes", known=frozenset({4, 12, 13, 1})).shapes == ((4, 12), (13, 1))
    assert raised(root, "broadcast").shapes == ((4,), (4, 1))
    assert raised(root, "torch_like").shapes == ((-1, -1), (13, 1))


def test_the_full_text_stays_for_the_log_under_the_incident(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = raised(root, "plain")
    assert re.fullmatch(r"[0-9a-f]{12}", found.incident)
    errors.record(found)
    assert "patient 63" in caplog.text
    assert found.incident in caplog.text


def test_an_error_survives_the_way_from_the_worker(root: Path) -> None:
    found = raised(root, "real_shapes")
    again = errors.from_wire(found.to_wire())
    assert again.crossing() == found.crossing()
    assert again.text == found.text


def test_an_error_that_cannot_even_be_printed(root: Path) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise SystemExit(63)

    found = errors.of_learner(Mute(), root, (), ())
    assert (found.code, found.error) == ("learner_error", "Exception")


def test_the_template_is_a_place_too() -> None:
    loaded = packages.template()
    learner = loaded.learner()
    with pytest.raises(RuntimeError) as caught:
        learner.loss(torch.nn.Linear(3, 1), torch.zeros(4, 2), torch.zeros(4, 1))
    found = errors.of_learner(caught.value, loaded.root, loaded.files, {4, 2, 3, 1})
    assert re.fullmatch(r"templates/tabular\.py:\d+", found.place)
    assert found.shapes == ((4, 2), (3, 1))
