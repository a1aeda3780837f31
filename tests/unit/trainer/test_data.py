"""A file read by its contract: what is wrong is named by column, and no cell of it shows anywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koinon.domain.contract import Contract
from koinon.trainer import data, features
from koinon.trainer.errors import TrainerError

CONTRACT: dict[str, Any] = {
    "columns": [
        {"name": "colour", "type": "category", "levels": ["red", "1.0", "NA"], "prepare": "one_hot"},
        {"name": "age", "type": "integer", "minimum": 18, "maximum": 110, "prepare": "standardise"},
        {"name": "dose", "type": "real", "missing": "mean"},
        {"name": "grade", "type": "integer", "levels": [1, 2, 3], "prepare": "one_hot_drop_first"},
        {"name": "ward", "type": "category", "role": "ignored"},
        {"name": "sick", "type": "integer", "role": "target"},
    ],
    "target": {"task": "classification", "positive_above": 0},
    "min_records": 4,
}
SECRET = "63"


def declared(**changes: dict[str, Any]) -> data.Contract:
    """CONTRACT through the domain's validation, with changed columns."""
    columns = [{**column, **changes.get(column["name"], {})} for column in CONTRACT["columns"]]
    return data.contract(Contract.of({**CONTRACT, "columns": columns}).model_dump(mode="json"))


def table(tmp_path: Path, *rows: str, head: str = "ward,age,colour,dose,grade,sick") -> Path:
    path = tmp_path / "records.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


GOOD = ["x,40,red,1.5,1,0", "y,50,1,,2,1", "y,60,NA,2.5,3,1", "x,70,red,2.0,1,0", "y,30,red,2.0,1,3", "x,20,red,9,2,0"]


def test_cells_become_numbers_and_canonical_levels(tmp_path: Path) -> None:
    found = data.read(table(tmp_path, *GOOD), declared())
    assert found.numbers["age"].tolist() == [40, 50, 60, 70, 30, 20]
    assert found.texts["colour"].tolist() == ["red", "1", "NA", "red", "red", "red"]
    assert found.missing("dose").tolist() == [False, True, False, False, False, False]
    assert found.columns["dose"] == {"rows": 6, "present": 5, "within": 5}
    assert "ward" not in found.columns


def test_feature_names_are_the_domains(tmp_path: Path) -> None:
    assert declared().feature_names == Contract.of(CONTRACT).feature_names()
    assert features._matrix(data.read(table(tmp_path, *GOOD), declared()), declared(), np.ones(6, bool)).shape == (6, 7)


@pytest.mark.parametrize(
    ("code", "column", "rows"),
    [
        ("data_type", "age", ["x,sixty,red,1,1,0"]),
        ("data_type", "age", ["x,63.5,red,1,1,0"]),
        ("data_type", "dose", ["x,63,red,inf,1,0"]),
        ("data_type", "sick", ["x,63,red,1,1,yes"]),
        ("data_range", "age", ["x,163,red,1,1,0"]),
        ("data_level", "colour", ["x,63,blue63,1,1,0"]),
        ("data_level", "grade", ["x,63,red,1,63,0"]),
    ],
)
def test_a_bad_cell_names_its_column_and_shows_no_value(
    tmp_path: Path, code: str, column: str, rows: list[str]
) -> None:
    with pytest.raises(TrainerError) as caught:
        data.read(table(tmp_path, *GOOD, *rows), declared())
    assert (caught.value.code, caught.value.names) == (code, (column,))
    shown = caught.value.text + str(caught.value.crossing()["names"]) + str(caught.value)
    assert SECRET not in shown
    assert "blue" not in shown
    assert "sixty" not in shown


def test_absent_and_repeated_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        data.read(table(tmp_path, "1,2,3", head="age,dose,sick"), declared())
    assert (caught.value.code, caught.value.names) == ("data_column", ("colour", "grade"))
    with pytest.raises(TrainerError) as caught:
        data.read(table(tmp_path, "1,2", head="age,age,colour,dose,grade,sick"), declared())
    assert (caught.value.code, caught.value.names) == ("data_column", ("age",))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00records", b'age,colour,dose,grade,sick\n"63,red', b"", b"\0"])
def test_what_is_no_table_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "records.csv"
    path.write_bytes(content)
    with pytest.raises(TrainerError) as caught:
        data.read(path, declared())
    assert caught.value.code in ("data_unreadable", "data_column")
    assert SECRET not in caught.value.text


def test_a_ragged_line_is_refused_without_quoting_it(tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        data.read(table(tmp_path, *GOOD, "x,63,red,1,1,0,63,63"), declared())
    assert caught.value.code == "data_unreadable"
    assert SECRET not in caught.value.text


def test_an_absent_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        data.read(tmp_path / "none.csv", declared())
    assert (caught.value.code, caught.value.error) == ("data_unreadable", "FileNotFoundError")


@pytest.mark.parametrize(
    ("conditions", "rows"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        ([{"column": "age", "op": ">=", "value": "50"}], [1, 2, 3]),
        ([{"column": "age", "op": ">=", "value": "50"}, {"column": "sick", "op": "==", "value": "0"}], [3]),
        ([{"column": "colour", "op": "==", "value": "1.0"}], [1]),
        ([{"column": "colour", "op": "!=", "value": "1"}], [0, 2, 3, 4, 5]),
        ([{"column": "dose", "op": "!=", "value": "2"}], [0, 2, 5]),  # a missing cell meets no condition
        ([{"column": "grade", "op": "<", "value": "2"}], [0, 3, 4]),
    ],
)
def test_cohorts(tmp_path: Path, conditions: list[dict[str, str]], rows: list[int]) -> None:
    found = data.read(table(tmp_path, *GOOD), declared())
    assert np.flatnonzero(data.cohort(found, conditions)).tolist() == rows


def test_a_cohort_may_name_an_ignored_column(tmp_path: Path) -> None:
    path = table(tmp_path, *(row.replace("x,", "7,").replace("y,", "8.0,") for row in GOOD))
    found = data.read(path, declared(), frozenset({"ward"}))
    assert np.flatnonzero(data.cohort(found, [{"column": "ward", "op": "==", "value": "8"}])).tolist() == [1, 2, 4]
    assert np.flatnonzero(data.cohort(found, [{"column": "ward", "op": "<", "value": "8"}])).tolist() == [0, 3, 5]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [(" 1.0", "1"), ("-0", "0"), ("1e2", "100"), ("low ", "low"), ("nan", "nan"), ("1e999", "1e999"), ("010", "10")],
)
def test_levels_compare_as_the_contract_writes_them(text: str, meaning: str) -> None:
    assert data.canonical(text) == meaning
