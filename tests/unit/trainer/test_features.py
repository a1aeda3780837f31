"""Splits and preprocessing, fitted on a site's training rows alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from koinon.domain.contract import Contract
from koinon.trainer import data, features
from koinon.trainer.errors import TrainerError


def make(tmp_path: Path, rows: list[str], **changes: Any) -> tuple[data.Table, data.Contract]:
    """A table of columns a (standardised), b (as it is), k (levels p, q, r) and y."""
    columns = [
        {"name": "k", "type": "category", "levels": ["p", "q", "r"], "prepare": "one_hot_drop_first"},
        {"name": "a", "type": "real", "prepare": "standardise", "missing": changes.pop("missing", "drop_row")},
        {"name": "b", "type": "real"},
        {"name": "y", "type": "real", "role": "target"},
    ]
    target = {"task": "classification", "positive_above": "0.5"}
    fields = {"columns": columns, "target": target, "min_records": 4, **changes}
    declared = data.contract(Contract.of(fields).model_dump(mode="json"))
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a,b,k,y", *rows]))
    return data.read(path, declared), declared


def rows_of(count: int, positives: int) -> list[str]:
    return [f"{n * 1.5},{n % 7},{'pqr'[n % 3]},{int(n < positives)}" for n in range(count)]


def test_the_split_is_sklearns_and_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    table, declared = make(tmp_path, rows_of(50, 20))
    found = features.split(table, declared, [])
    labels = np.arange(50) < 20
    train, test = train_test_split(np.arange(50), train_size=0.66, test_size=0.34, random_state=43, stratify=labels)
    assert (found.train_x[:, 0] / 1.5).tolist() == sorted(train)
    assert (found.test_x[:, 0] / 1.5).tolist() == sorted(test)
    assert found.train_y.shape == (len(train), 1)


def test_a_class_with_fewer_than_three_rows_is_not_stratified(tmp_path: Path) -> None:
    table, declared = make(tmp_path, rows_of(50, 2))
    train, _ = train_test_split(np.arange(50), train_size=0.66, test_size=0.34, random_state=43)
    assert (features.split(table, declared, []).train_x[:, 0] / 1.5).tolist() == sorted(train)


def test_features_are_scaled_by_the_training_rows(tmp_path: Path) -> None:
    table, declared = make(tmp_path, rows_of(60, 30))
    parts, found = features.split(table, declared, []), features.rows(table, declared, [])
    mean, deviation = parts.train_x[:, 0].mean(), parts.train_x[:, 0].std(ddof=1)
    assert found.test_x[:, 0] == pytest.approx((parts.test_x[:, 0] - mean) / deviation, abs=1e-5)
    assert found.train_x[:, 1:] == pytest.approx(parts.train_x[:, 1:])  # b and the levels stay as they are
    assert set(np.unique(found.train_x[:, 2:])) == {0, 1}
    assert found.train_x.dtype == np.float32


def test_standardise_features_scales_the_levels_too_and_a_constant_becomes_zero(tmp_path: Path) -> None:
    rows = [row.replace(f",{n % 7},", ",0.1,") for n, row in enumerate(rows_of(60, 30))]
    table, declared = make(tmp_path, rows, standardise="features")
    found = features.rows(table, declared, [])
    assert not found.train_x[:, 1].any()
    assert not found.test_x[:, 1].any()
    assert found.train_x[:, [0, 2, 3]].mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-6)
    assert found.train_x[:, [0, 2, 3]].std(axis=0, ddof=1) == pytest.approx([1, 1, 1], abs=1e-6)


def test_missing_cells(tmp_path: Path) -> None:
    holes = ["" + row[row.index(",") :] if n % 5 == 0 else row for n, row in enumerate(rows_of(60, 30))]
    table, declared = make(tmp_path, holes)
    assert len(features.split(table, declared, []).train_x) + len(features.split(table, declared, []).test_x) == 48
    table, declared = make(tmp_path, holes, missing="mean")
    parts, found = features.split(table, declared, []), features.rows(table, declared, [])
    assert len(parts.train_x) + len(parts.test_x) == 60
    assert np.abs(found.test_x[np.isnan(parts.test_x[:, 0]), 0]).max() < 1e-6  # the mean, scaled
    table, declared = make(tmp_path, holes, missing="refuse")
    with pytest.raises(TrainerError) as caught:
        features.split(table, declared, [])
    assert (caught.value.code, caught.value.names) == ("data_missing", ("a",))


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (rows_of(20, 0), "one_class"),
        (rows_of(20, 20), "one_class"),
        (rows_of(3, 1), "too_few_records"),
    ],
)
def test_data_that_cannot_train(tmp_path: Path, rows: list[str], code: str) -> None:
    table, declared = make(tmp_path, rows)
    with pytest.raises(TrainerError) as caught:
        features.split(table, declared, [])
    assert caught.value.code == code


def test_a_cohort_counts_for_the_minimum(tmp_path: Path) -> None:
    table, declared = make(tmp_path, rows_of(40, 20), min_records=12)
    assert len(features.split(table, declared, [{"column": "a", "op": "<", "value": "40"}]).train_x) > 0
    with pytest.raises(TrainerError) as caught:
        features.split(table, declared, [{"column": "a", "op": ">", "value": "45"}])
    assert caught.value.code == "too_few_records"


def test_regression_takes_the_target_as_it_is(tmp_path: Path) -> None:
    rows = [f"{n},{n},p,{n / 8}" for n in range(30)]
    table, declared = make(tmp_path, rows, target={"task": "regression"})
    found = features.split(table, declared, [])
    assert found.train_y[:, 0] == pytest.approx(found.train_x[:, 0] / 8)
