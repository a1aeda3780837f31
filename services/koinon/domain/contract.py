"""The data contract: which columns a project needs, in which form, and how they become features.

Written in YAML by a researcher, checked at every hospital before the first round, frozen into the manifest.
Preprocessing comes from a closed list and is fitted per site on its own training rows.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from koinon.domain import canonical
from koinon.domain.errors import Invalid
from koinon.domain.keys import Wire


def _number(value: Any) -> str:
    """Raises ValueError, so that `Number | str` falls back to text and pydantic can name the field."""
    try:
        return canonical.decimal_text(value)
    except Invalid:
        raise ValueError("this is not a finite number") from None


Number = Annotated[str, BeforeValidator(_number)]


class Column(Wire):
    """One column. `role` ignored columns are never read. Levels are compared as canonical text."""

    name: str = Field(min_length=1, max_length=128)
    type: Literal["integer", "real", "category"]
    role: Literal["feature", "target", "ignored"] = "feature"
    minimum: Number | None = None
    maximum: Number | None = None
    levels: tuple[Number | str, ...] | None = None
    prepare: Literal["none", "standardise", "one_hot", "one_hot_drop_first"] = "none"
    missing: Literal["drop_row", "mean", "refuse"] = "drop_row"

    @model_validator(mode="after")
    def _consistent(self) -> "Column":
        if self.type == "category" and self.role == "feature":
            if not self.levels:
                raise ValueError(f"{self.name} is a category and needs its levels")
            if not self.prepare.startswith("one_hot"):
                raise ValueError(f"{self.name} is a category: prepare it with one_hot or one_hot_drop_first")
        if self.levels and len(set(self.levels)) != len(self.levels):
            raise ValueError(f"{self.name} lists a level twice")
        if self.type != "category" and self.prepare.startswith("one_hot") and not self.levels:
            raise ValueError(f"{self.name} needs levels to be one-hot encoded")
        if self.minimum is not None and self.maximum is not None and Decimal(self.minimum) > Decimal(self.maximum):
            raise ValueError(f"{self.name}: minimum {self.minimum} is above maximum {self.maximum}")
        return self

    def width(self) -> int:
        """How many features the column becomes."""
        if self.role != "feature":
            return 0
        if not self.prepare.startswith("one_hot"):
            return 1
        return len(self.levels or ()) - (self.prepare == "one_hot_drop_first")


class Target(Wire):
    """What is predicted: rows above `positive_above` are the positive class; regression takes it as it is."""

    task: Literal["classification", "regression"]
    positive_above: Number | None = None

    @model_validator(mode="after")
    def _threshold_belongs_to_classes(self) -> "Target":
        if (self.task == "classification") != (self.positive_above is not None):
            raise ValueError("classification needs positive_above; regression must not have it")
        return self


class Split(Wire):
    """scikit-learn's train_test_split; stratified unless a class has fewer than 3 rows."""

    train: Number = "0.66"
    test: Number = "0.34"
    stratify: bool = True
    seed: int = 43

    @model_validator(mode="after")
    def _fractions(self) -> "Split":
        train, test = Decimal(self.train), Decimal(self.test)
        if not (0 < train < 1 and 0 < test < 1 and train + test <= 1):
            raise ValueError("train and test are fractions between 0 and 1 that add up to at most 1")
        return self


class Contract(Wire):
    """A table's contract. Features: numeric columns in their order, then the one-hot levels in theirs."""

    columns: tuple[Column, ...] = Field(min_length=2, max_length=100_000)
    target: Target
    split: Split = Split()
    standardise: Literal["columns", "features"] = "columns"
    min_records: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _one_target_and_unique_names(self) -> "Contract":
        names = [column.name for column in self.columns]
        twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
        if twice:
            raise ValueError(f"the column {sorted(twice)[0]} is listed twice")
        targets = [column.name for column in self.columns if column.role == "target"]
        if len(targets) != 1:
            raise ValueError(f"exactly one column has the role target, not {len(targets)}")
        if self.inputs() == 0:
            raise ValueError("no column is a feature")
        return self

    def inputs(self) -> int:
        """The number of features a model sees."""
        return sum(column.width() for column in self.columns)

    def feature_names(self) -> tuple[str, ...]:
        plain = [c for c in self.columns if c.role == "feature" and not c.prepare.startswith("one_hot")]
        coded = [c for c in self.columns if c.role == "feature" and c.prepare.startswith("one_hot")]
        first = {c.name: int(c.prepare == "one_hot_drop_first") for c in coded}
        return (
            *(c.name for c in plain),
            *(f"{c.name}={level}" for c in coded for level in (c.levels or ())[first[c.name] :]),
        )


class Condition(Wire):
    """One term of a named cohort; a cohort is the conjunction of its conditions."""

    column: str
    op: Literal["==", "!=", "<", "<=", ">", ">="]
    value: Number


Cohorts = dict[str, tuple[Condition, ...]]


class _UniqueLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but a repeated key is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise Invalid(f'The key "{name}" appears twice.', where=f"line {key.start_mark.line + 1}")
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, *, where: str = "contract") -> Any:
    """YAML without duplicate keys. Raises Invalid with the line."""
    try:
        return yaml.load(text, _UniqueLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise Invalid(f"This is not YAML: {error.problem}.", where=f"{where}, line {line}") from None


def from_yaml(text: str, *, where: str = "contract") -> Contract:
    """Raises Invalid that names the field or the line."""
    return Contract.of(read_yaml(text, where=where), where=where)
