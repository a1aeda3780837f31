"""A data contract proposed from a CSV file: what a person would write down first, to be edited by a person."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koinon.domain import canonical, errors
from koinon.domain.contract import Contract

MISSING = {"", "na", "n/a", "nan", "null", "none", "?", "."}
MAX_LEVELS = 12
_OUTCOMES = ("target", "label", "outcome", "event", "y", "class", "num")


@dataclass
class _Seen:
    """What a column's values are, read once, without keeping the file."""

    name: str
    values: set[str]
    many: bool = False
    missing: int = 0
    rows: int = 0
    numbers: bool = True
    integers: bool = True
    low: float = math.inf
    high: float = -math.inf

    def kind(self) -> str:
        return "category" if not self.numbers else "integer" if self.integers else "real"

    def add(self, text: str) -> None:
        self.rows += 1
        if text.strip().lower() in MISSING:
            self.missing += 1
            return
        try:
            number = float(text)
        except ValueError:
            self.numbers = False
            level = text.strip()
        else:
            if not math.isfinite(number):
                self.missing += 1
                return
            self.integers = self.integers and number == int(number)
            self.low, self.high = min(self.low, number), max(self.high, number)
            level = canonical.decimal_text(text.strip().lstrip("+"))
        if not self.many:
            self.values.add(level)
            self.many = len(self.values) > MAX_LEVELS


@dataclass(frozen=True)
class Proposal:
    contract: Contract
    notes: dict[str, str]
    source: str
    rows: int

    def yaml(self) -> str:
        """The contract as a person edits it: one line a column, with what was seen as a comment."""
        body = self.contract
        lines = [
            f"# Proposed from {self.source} ({self.rows} rows). Ranges and levels are those of this file alone:",
            "# widen them to what is plausible at every hospital, then send the contract around.",
            "columns:",
        ]
        for column in body.columns:
            shown = column.model_dump(exclude_defaults=True)
            note = self.notes.get(column.name, "")
            lines.append(f"  - {_flow(shown)}" + (f"  # {note}" if note else ""))
        lines.append(f"target: {_flow(body.target.model_dump(exclude_none=True))}")
        lines.append(f"split: {_flow(body.split.model_dump())}")
        lines.append(f"standardise: {body.standardise}")
        lines.append(f"min_records: {body.min_records}")
        return "\n".join(lines) + "\n"


def propose(data: Path, target: str | None = None) -> Proposal:
    """Reads `data` once. The target is `target`, else a column called like an outcome, else the last one.

    Raises NotFound, or Invalid that names the line or the column.
    """
    columns = _read(data)
    names = [column.name for column in columns]
    chosen = target or next((n for n in names if n.lower() in _OUTCOMES), names[-1])
    if chosen not in names:
        raise errors.Invalid(f"There is no column {chosen}.", where=data.name, todo=f"It has {', '.join(names)}.")
    notes = {column.name: _note(column) for column in columns}
    rows: list[dict[str, Any]] = [
        _column(column, role="target" if column.name == chosen else "feature") for column in columns
    ]
    seen = columns[names.index(chosen)]
    body = {"columns": rows, "target": _target(seen, data)}
    return Proposal(Contract.of(body, where=data.name), notes, data.name, seen.rows)


def _read(data: Path) -> list[_Seen]:
    try:
        file = data.open(newline="", encoding="utf-8-sig")
    except FileNotFoundError:
        raise errors.NotFound("There is no such file.", where=str(data)) from None
    with file:
        reader = csv.reader(file)
        try:
            heads = [head.strip() for head in next(reader, [])]
        except UnicodeDecodeError:
            raise _not_utf8(data) from None
        if len(heads) < 2:
            raise errors.Invalid("A table has at least two columns, separated by commas.", where=data.name)
        if len(set(heads)) < len(heads) or "" in heads:
            raise errors.Invalid("Every column needs a name of its own.", where=f"{data.name}, line 1")
        columns = [_Seen(head, set()) for head in heads]
        try:
            for row in reader:
                if not row:
                    continue
                if len(row) != len(heads):
                    raise errors.Invalid(
                        f"This line has {len(row)} values, the first one names {len(heads)} columns.",
                        where=f"{data.name}, line {reader.line_num}",
                    )
                for column, text in zip(columns, row, strict=True):
                    column.add(text)
        except UnicodeDecodeError:
            raise _not_utf8(data) from None
    if columns[0].rows == 0:
        raise errors.Invalid("The file has no rows.", where=data.name)
    return columns


def _not_utf8(data: Path) -> errors.Invalid:
    return errors.Invalid("This is not UTF-8 text.", where=data.name, todo="Save it as UTF-8 CSV.")


def _column(seen: _Seen, *, role: str) -> dict[str, Any]:
    row: dict[str, Any] = {"name": seen.name, "role": role}
    if seen.missing == seen.rows or (not seen.numbers and seen.many):
        return {**row, "type": "category", "role": "target" if role == "target" else "ignored"}
    if role == "feature" and (2 * seen.missing > seen.rows or len(seen.values) < 2):
        return {**row, "type": seen.kind(), "role": "ignored"}
    binary = seen.numbers and seen.integers and seen.values <= {"0", "1"}
    few = not seen.many and len(seen.values) <= (MAX_LEVELS if not seen.numbers else 6)
    if role == "feature" and few and not binary and (not seen.numbers or (seen.integers and len(seen.values) > 2)):
        levels = sorted(seen.values, key=lambda v: (float(v) if seen.numbers else 0.0, v))
        return {**row, "type": "category", "levels": levels, "prepare": "one_hot_drop_first"}
    if not seen.numbers:
        return {**row, "type": "category", "role": "ignored" if role == "feature" else role}
    row.update(type=seen.kind(), minimum=_text(seen.low), maximum=_text(seen.high))
    if role == "feature":
        row["prepare"] = "none" if binary else "standardise"
    return row


def _target(seen: _Seen, data: Path) -> dict[str, Any]:
    if not seen.numbers or seen.missing == seen.rows:
        raise errors.Invalid(
            "The target must be a number.",
            where=f"{data.name}, column {seen.name}",
            todo="Code its classes as 0 and 1, or name another column: --target NAME",
        )
    if seen.low == seen.high:
        raise errors.Invalid("The target has a single value.", where=f"{data.name}, column {seen.name}")
    if seen.integers and not seen.many:
        return {"task": "classification", "positive_above": _text(seen.low)}
    return {"task": "regression"}


def _note(seen: _Seen) -> str:
    if seen.missing == seen.rows:
        return "empty: ignored"
    if 2 * seen.missing > seen.rows:
        return f"{seen.missing} of {seen.rows} missing: ignored"
    if len(seen.values) < 2:
        return "a single value: ignored"
    parts = [f"{seen.missing} of {seen.rows} missing: their rows are dropped"] if seen.missing else []
    if not seen.numbers and seen.many:
        parts.append("free text: ignored")
    return "; ".join(parts)


def _text(number: float) -> str:
    return canonical.decimal_text(int(number) if number == int(number) else number)


def _flow(mapping: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in mapping.items()) + "}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    text = str(value)
    plain = text.replace("_", "").isalnum() or text.lstrip("-").replace(".", "", 1).isdigit()
    reserved = text.lower() in ("y", "n", "yes", "no", "true", "false", "on", "off", "null")
    return text if plain and not reserved and not text.startswith("0x") else "'" + text.replace("'", "''") + "'"
