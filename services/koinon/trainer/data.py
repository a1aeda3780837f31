"""Declared data: a CSV file read as the contract says, every cell checked, cohorts applied.

Trusted code, run in the driver: research code gets the arrays that come out of features.py, never the
file. An error names columns of the contract; no value of a record is in it, not even in its log text.
"""

import csv
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from koinon.trainer.errors import TrainerError

MISSING = ("", "NA", "NaN", "nan")
"""Cells that hold no value, unless the column lists them as a level."""

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Column:
    """A column of the contract, as domain.contract.Column has it."""

    name: str
    type: str
    role: str = "feature"
    minimum: str | None = None
    maximum: str | None = None
    levels: tuple[str, ...] | None = None
    prepare: str = "none"
    missing: str = "drop_row"

    @property
    def coded(self) -> bool:
        return self.prepare.startswith("one_hot")

    @property
    def shown_levels(self) -> tuple[str, ...]:
        """The levels that become features."""
        return (self.levels or ())[int(self.prepare == "one_hot_drop_first") :]


@dataclass(frozen=True)
class Contract:
    """The data contract, as the manifest's JSON gives it; the agent has validated it."""

    columns: tuple[Column, ...]
    task: str
    positive_above: float
    train: float
    test: float
    stratify: bool
    seed: int
    standardise: str
    min_records: int

    @property
    def features(self) -> tuple[Column, ...]:
        """Feature columns in the order of their features: plain ones first, then the one-hot coded."""
        used = [column for column in self.columns if column.role == "feature"]
        return (*(c for c in used if not c.coded), *(c for c in used if c.coded))

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(
            name
            for column in self.features
            for name in ([f"{column.name}={level}" for level in column.shown_levels] if column.coded else [column.name])
        )

    @property
    def target(self) -> Column:
        return next(column for column in self.columns if column.role == "target")

    @property
    def names(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns)


def contract(fields: Mapping[str, Any]) -> Contract:
    """Raises TrainerError bad_request."""
    try:
        target, split = fields["target"], fields["split"]
        columns = tuple(
            Column(**{**column, "levels": tuple(canonical(str(v)) for v in column["levels"])})
            if column.get("levels")
            else Column(**{**column, "levels": None})
            for column in fields["columns"]
        )
        above = target.get("positive_above")
        return Contract(
            columns=columns,
            task=target["task"],
            positive_above=float(above) if above is not None else 0.0,
            train=float(split["train"]),
            test=float(split["test"]),
            stratify=bool(split["stratify"]),
            seed=int(split["seed"]),
            standardise=fields["standardise"],
            min_records=int(fields["min_records"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrainerError("bad_request", f"no contract: {error!r}") from None


def canonical(text: str) -> str:
    """A level as the contract writes it: " 1.0" -> "1", "low" -> "low"."""
    text = text.strip()
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    if not number.is_finite() or number.adjusted() > 40 or number.adjusted() < -40:
        return text
    plain = format(number, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


class Table:
    """The checked cells of a file: `numbers` as float64 with NaN where missing, `texts` as canonical text
    with None where missing (of categories and columns with levels)."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.numbers: dict[str, Values] = {}
        self.texts: dict[str, npt.NDArray[np.object_]] = {}
        self.columns: dict[str, dict[str, int]] = {}

    def missing(self, name: str) -> Mask:
        if name in self.texts:
            return np.asarray(pd.isna(self.texts[name]), dtype=bool)
        return np.isnan(self.numbers[name])


def read(path: Path, declared: Contract, conditions: frozenset[str] = frozenset()) -> Table:
    """Features, target and the columns that `conditions` name; ignored ones are not read.

    Raises TrainerError data_unreadable, data_column, data_type, data_level, data_range.
    """
    wanted = [c for c in declared.columns if c.role != "ignored" or c.name in conditions]
    cells = _cells(path, [column.name for column in wanted])
    if cells.empty:
        raise TrainerError("data_unreadable", f"{path}: the file has no rows")
    table = Table(len(cells))
    for column in wanted:
        _check(column, cells[column.name], table)
    return table


def _cells(path: Path, names: list[str]) -> pd.DataFrame:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, skipinitialspace=True, strict=True)
            found = [name.strip() for name in next(lines, [])]
            # pandas drops surplus cells in silence, and a lost comma shifts all that follow.
            ragged = next((lines.line_num for cells in lines if len(cells) not in (0, len(found))), None)
        absent = [name for name in names if name not in found]
        twice = [name for name in names if found.count(name) > 1]
        if absent or twice:
            what = f"no column {', '.join(absent)}" if absent else f"column {', '.join(twice)} twice"
            what += "; is it separated by commas?" if len(found) < 2 else ""
            raise TrainerError("data_column", f"{path}: {what}", names=absent or twice)
        if ragged is not None:
            raise TrainerError("data_unreadable", f"{path}: line {ragged} has not {len(found)} cells")
        return pd.read_csv(
            path,
            header=0,
            names=found,
            usecols=names,
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            skipinitialspace=True,
            encoding="utf-8-sig",
            index_col=False,
        )
    except (OSError, UnicodeError, ValueError, csv.Error) as error:  # pandas' parser errors are ValueErrors
        # Only the class: the message of a parser may quote a line of the file.
        raise TrainerError("data_unreadable", f"{path}: {type(error).__name__}", error=_reason(error)) from None


def _reason(error: Exception) -> str:
    known = (FileNotFoundError, PermissionError, IsADirectoryError, UnicodeDecodeError)
    return type(error).__name__ if isinstance(error, known) else "ValueError"


def _check(column: Column, cells: "pd.Series[str]", table: Table) -> None:
    """Adds one column to `table`."""
    text = cells.str.strip()
    absent = text.isin([word for word in MISSING if word not in (column.levels or ())]).to_numpy(dtype=bool)
    present = int(len(text) - absent.sum())
    within = ~absent
    if column.type == "category" or column.levels:
        meaning = {word: canonical(str(word)) for word in text.unique()}
        levels = text.map(meaning).to_numpy(dtype=object, copy=True)
        levels[absent] = None
        table.texts[column.name] = levels
        if column.levels:
            within &= text.map({word: plain in column.levels for word, plain in meaning.items()}).to_numpy(dtype=bool)
            if within.sum() < present:
                raise TrainerError("data_level", _count(column, within, present), names=(column.name,))
    if column.type != "category" or (column.role == "target"):
        numbers = pd.to_numeric(text.where(~absent), errors="coerce").to_numpy(dtype=np.float64)
        typed = np.isfinite(numbers) & ~absent
        if column.type == "integer":
            typed &= np.floor(numbers) == numbers
        if typed.sum() < present:
            raise TrainerError("data_type", _count(column, typed, present), names=(column.name,))
        within &= _in_range(column, numbers)
        if within.sum() < present:
            raise TrainerError("data_range", _count(column, within, present), names=(column.name,))
        table.numbers[column.name] = numbers
    table.columns[column.name] = {"rows": len(text), "present": present, "within": int(within.sum())}


def _in_range(column: Column, numbers: Values) -> Mask:
    low = -np.inf if column.minimum is None else float(column.minimum)
    high = np.inf if column.maximum is None else float(column.maximum)
    return (numbers >= low) & (numbers <= high)


def _count(column: Column, good: Mask, present: int) -> str:
    return f"column {column.name}: {int(good.sum())} of {present} cells are as the contract says"


def cohort(table: Table, conditions: Sequence[Mapping[str, Any]]) -> Mask:
    """Rows that meet every condition {column, op, value}; a missing cell meets none."""
    chosen = np.ones(table.rows, dtype=bool)
    for condition in conditions:
        name, op, value = str(condition["column"]), str(condition["op"]), str(condition["value"])
        chosen &= ~table.missing(name)
        if name in table.numbers:
            chosen &= _COMPARE[op](table.numbers[name], float(value))
        elif op in ("==", "!="):
            chosen &= _COMPARE[op](table.texts[name], canonical(value)).astype(bool)
        else:
            ordered = pd.to_numeric(pd.Series(table.texts[name]), errors="coerce").to_numpy(dtype=np.float64)
            chosen &= _COMPARE[op](ordered, float(value))
    return chosen
