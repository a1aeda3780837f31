"""From checked cells to arrays: missing values, split, and preprocessing fitted on a site's training rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from koinon.trainer import data
from koinon.trainer.data import Contract, Mask, Table, Values
from koinon.trainer.errors import TrainerError
from koinon.trainer.tensors import Array, Rows

FEWEST_OF_A_CLASS = 3  # below, a split cannot be stratified


@dataclass(frozen=True)
class Split:
    """Rows before scaling: x float64 (rows, inputs) with NaN where missing, y float32 (rows, 1)."""

    train_x: Values
    train_y: Array
    test_x: Values
    test_y: Array


@dataclass(frozen=True)
class Scaling:
    """Per feature, from training rows: the fill for missing values, the mean and the divisor (0: constant)."""

    fill: Values
    mean: Values
    deviation: Values

    def apply(self, x: Values) -> Array:
        """float32; a constant feature becomes 0."""
        filled = np.where(np.isnan(x), self.fill, x)
        divisor = np.where(self.deviation > 0, self.deviation, 1.0)
        return np.where(self.deviation > 0, (filled - self.mean) / divisor, 0.0).astype(np.float32)


def scaling(declared: Contract, train_x: Values) -> Scaling:
    """Fill: the training mean. Standardised features get mean 0 and sample deviation 1 (n - 1), which is
    how the published figures of the heart data were made; other features stay as they are."""
    present = ~np.isnan(train_x)
    counts = np.maximum(present.sum(axis=0), 1)
    fill = np.where(present, train_x, 0.0).sum(axis=0) / counts
    filled = np.where(present, train_x, fill)
    wanted = np.array(
        [
            declared.standardise == "features" or column.prepare == "standardise"
            for column in declared.features
            for _ in range(len(column.shown_levels) if column.coded else 1)
        ]
    )
    deviation = filled.std(axis=0, ddof=1) if len(filled) > 1 else np.zeros(filled.shape[1])
    # Constant up to rounding: all that is left of a mean that float64 cannot hold exactly.
    deviation = np.where(filled.max(axis=0) == filled.min(axis=0), 0.0, deviation)
    return Scaling(fill, np.where(wanted, filled.mean(axis=0), 0.0), np.where(wanted, deviation, 1.0))


def split(table: Table, declared: Contract, conditions: Sequence[Mapping[str, Any]]) -> Split:
    """The rows of a cohort, split as declared; each part keeps the order of the file.

    Raises TrainerError data_missing, too_few_records, one_class.
    """
    kept = _complete(table, declared, data.cohort(table, conditions))
    target = declared.target.name
    count = int(kept.sum())
    if count < max(declared.min_records, 2):
        raise TrainerError("too_few_records", f"{count} records, the contract asks for {declared.min_records}")
    x, y = _matrix(table, declared, kept), table.numbers[target][kept]
    strata = None
    if declared.task == "classification":
        y = (y > declared.positive_above).astype(np.float64)
        smallest = int(min(y.sum(), count - y.sum()))
        if smallest == 0:
            raise TrainerError("one_class", f"all {count} records have the same class", names=(target,))
        strata = y if declared.stratify and smallest >= FEWEST_OF_A_CLASS else None
    try:
        train, test = train_test_split(
            np.arange(count),
            train_size=declared.train,
            test_size=declared.test,
            random_state=declared.seed,
            stratify=strata,
        )
    except ValueError as error:
        raise TrainerError("too_few_records", f"{count} records cannot be split: {error}") from None
    train, test = np.sort(train), np.sort(test)
    labels = y.astype(np.float32)[:, None]
    return Split(x[train], labels[train], x[test], labels[test])


def rows(table: Table, declared: Contract, conditions: Sequence[Mapping[str, Any]]) -> Rows:
    """A cohort, ready for a model."""
    parts = split(table, declared, conditions)
    fitted = scaling(declared, parts.train_x)
    return Rows(fitted.apply(parts.train_x), parts.train_y, fitted.apply(parts.test_x), parts.test_y)


def _complete(table: Table, declared: Contract, chosen: Mask) -> Mask:
    """`chosen` without the rows that the contract drops for a missing value."""
    kept = chosen.copy()
    for column in (*declared.features, declared.target):
        missing = table.missing(column.name)
        if column.missing == "refuse" and (missing & chosen).any():
            raise TrainerError("data_missing", f"column {column.name} has missing values", names=(column.name,))
        # A target is never made up: without one, the row goes.
        if column.missing == "drop_row" or column.role == "target":
            kept &= ~missing
    return kept


def _matrix(table: Table, declared: Contract, kept: Mask) -> Values:
    """Plain features in their order, then one 0/1 feature per level; NaN where the cell is missing."""
    columns: list[Values] = []
    for column in declared.features:
        if not column.coded:
            columns.append(table.numbers[column.name][kept])
            continue
        texts, missing = table.texts[column.name][kept], table.missing(column.name)[kept]
        columns.extend(np.where(missing, np.nan, (texts == level).astype(float)) for level in column.shown_levels)
    return np.column_stack(columns)
