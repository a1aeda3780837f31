"""Contracts proposed from a researcher's own file."""

from pathlib import Path

import pytest

from koinon.client import infer
from koinon.data import heart
from koinon.domain import contract, errors


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("site", sorted(heart.HOSPITALS))
def test_proposals_for_real_files_are_contracts(site: str) -> None:
    proposal = infer.propose(heart.HOSPITALS[site], "num")
    again = contract.from_yaml(proposal.yaml())
    assert again == proposal.contract
    assert again.target.task == "classification"


def test_types_levels_and_ranges(tmp_path: Path) -> None:
    rows = ["age,sex,stage,smoker,note,bmi,y"]
    rows += [
        f"{20 + i},{i % 2},{1 + i % 4},{'yes' if i % 2 else 'no'},free {i},{18.5 + i / 10},{i % 2}" for i in range(40)
    ]
    proposal = infer.propose(_write(tmp_path / "my.csv", "\n".join(rows)))
    found = {column.name: column for column in proposal.contract.columns}
    assert (found["age"].type, found["age"].minimum, found["age"].maximum) == ("integer", "20", "59")
    assert found["sex"].prepare == "none"
    assert found["stage"].levels == ("1", "2", "3", "4")
    assert found["smoker"].levels == ("no", "yes")
    assert found["note"].role == "ignored"
    assert found["bmi"].type == "real"
    assert found["y"].role == "target"
    assert contract.from_yaml(proposal.yaml()) == proposal.contract


def test_a_real_target_is_a_regression(tmp_path: Path) -> None:
    rows = ["x,volume"] + [f"{i},{i * 1.5 + 0.25}" for i in range(30)]
    assert infer.propose(_write(tmp_path / "v.csv", "\n".join(rows))).contract.target.task == "regression"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least two columns"),
        ("a,b\n", "no rows"),
        ("a,a\n1,2\n", "name of its own"),
        ("a,b\n1\n", "1 values"),
        ("a,b\n1,x\n2,y\n", "must be a number"),
        ("a,b\n1,1\n2,1\n", "single value"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(errors.Invalid, match=message) as caught:
        infer.propose(_write(tmp_path / "bad.csv", text))
    assert "bad.csv" in caught.value.where


def test_unknown_target_lists_the_columns(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="no column z") as caught:
        infer.propose(_write(tmp_path / "t.csv", "a,b\n1,0\n2,1\n"), "z")
    assert "a, b" in caught.value.todo
