"""`koinon.check`: a model tried on this machine, on your own table or on a made-up one, before anything is sent.

What is tried is what a hospital runs: the same reading of the data, the same steps, the same scores, and one round of
the real protocol among three sites in this process. An exception of your own code comes out as it is.
"""

import csv
import inspect
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from koinon.client import manifests
from koinon.domain import errors
from koinon.domain.contract import Column, Contract
from koinon.domain.manifest import Protection
from koinon.learner import Model

ROWS = 240
STEPS = 100


@dataclass(frozen=True)
class Report:
    """What a check found. `before` and `after` are the scores on the test rows around one round of local steps."""

    data: str
    train_rows: int
    test_rows: int
    inputs: int
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: int
    before: dict[str, float]
    after: dict[str, float]
    steps: int
    step_milliseconds: float
    upload_bytes: int
    opened_error: float
    norm: float
    clipped: bool

    def lines(self) -> list[str]:
        """The report for people."""
        name = "accuracy" if "accuracy" in self.after else "mse"
        tensors = ", ".join(f"{tensor} {list(shape)}" for tensor, shape in self.layout[:6])
        more = ", …" if len(self.layout) > 6 else ""
        clipped = "; CLIPPED: the federation would see less of it" if self.clipped else ""
        return [
            f"data       {self.data}: {self.train_rows} training and {self.test_rows} test rows, {self.inputs} inputs",
            f"model      {self.parameters} parameters: {tensors}{more}; the same weights for the same seed",
            f"training   {self.steps} steps at {self.step_milliseconds:.2f} ms; loss {self.before['loss']:.4f} → "
            f"{self.after['loss']:.4f}, {name} {self.before[name]:.3f} → {self.after[name]:.3f}; nothing is NaN",
            f"protocol   one round among 3 sites: opened to within {self.opened_error:.1e}, weighted norm "
            f"{self.norm:.3g}{clipped}",
            f"upload     {self.upload_bytes} bytes a site and round",
        ]


def check(
    model: type[Model] | str | Path,
    *,
    data: str | Path | None = None,
    contract: str | Path | Mapping[str, Any],
    say: Callable[[str], None] | None = None,
    **parameters: Any,
) -> Report:
    """Tries `model` (a class, or a folder with model.py) for one round; seconds, on this machine alone.

    Without `data` the rows are made up from the contract. `parameters` are those of a run (local_steps, batch_size,
    learning_rate, …). Raises Invalid that names column, shape or line; what your code raises comes out unchanged.
    """
    from koinon.trainer.errors import TrainerError

    agreed = manifests.read_contract(contract)
    with tempfile.TemporaryDirectory(prefix="koinon-") as scratch:
        table = Path(data) if data else made_up(agreed, Path(scratch, "made-up.csv"))
        try:
            report = _try(model, table, agreed, dict(parameters), Path(scratch))
        except TrainerError as error:
            raise explain(error, agreed) from error.__cause__
    for line in report.lines():
        (say or print)(line)
    return report


def _try(
    model: type[Model] | str | Path, table: Path, agreed: Contract, parameters: dict[str, Any], scratch: Path
) -> Report:
    import numpy as np

    from koinon.cli import rehearsal
    from koinon.domain import manifest
    from koinon.domain import parameters as choices
    from koinon.trainer import data, features, packages, steps

    schema = manifest.default_parameters({"all": ()})
    chosen = choices.complete(schema, {"local_steps": STEPS, "learning_rate": "0.05", **parameters})
    declared = data.contract(agreed.model_dump())
    rows = features.rows(data.read(table, declared), declared, [])
    steps.one_thread()
    learner = model if inspect.isclass(model) else packages.load(Path(str(model)), scratch).learner
    task = steps.Task(agreed.inputs(), agreed.target.task, chosen)
    seed = int(chosen["seed"])
    built = steps.Built(learner, task, seed)
    first = built.read()
    if not np.array_equal(first, steps.Built(learner, task, seed).read()):
        raise errors.Invalid(
            "The same seed gives other first weights the second time.",
            where="model.py: build",
            todo="Draw random numbers from torch alone: hospitals must agree on the first weights.",
        )
    before = steps.evaluate(built, rows, first)
    order = steps.Round.of(seed, "check", 1, chosen)
    began = time.perf_counter()
    trained, _ = steps.fit(built, rows, order, {"model": first})
    took = time.perf_counter() - began
    after = steps.evaluate(built, rows, first + trained["update"])
    protection = Protection()
    weight = min(len(rows.train_y), protection.row_cap)
    heard = rehearsal.hold(trained["update"], weight, after, agreed, protection)
    return Report(
        data="made-up rows" if table.parent == scratch else table.name,
        train_rows=len(rows.train_y),
        test_rows=len(rows.test_y),
        inputs=agreed.inputs(),
        layout=tuple((name, tuple(shape)) for name, shape in built.layout),
        parameters=int(first.size),
        before=_numbers(before),
        after=_numbers(after),
        steps=order.steps,
        step_milliseconds=1_000 * took / order.steps,
        upload_bytes=heard.upload_bytes,
        opened_error=heard.error,
        norm=heard.norm,
        clipped=heard.clipped,
    )


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}


_ADVICE = {
    "data_unreadable": ("The table cannot be read", "It must be a CSV file with a line of column names."),
    "data_column": ("A column of the contract is missing or there twice", "koinon contract infer proposes a contract."),
    "data_type": ("A cell is not of the contract's type", "Correct the cell or the type."),
    "data_level": ("A cell is not one of the contract's levels", "Add the level, or correct the cell."),
    "data_range": ("A cell is outside the contract's range", "Widen the range, or correct the cell."),
    "data_missing": ("A cell is missing where the contract refuses that", "missing: drop_row or mean allows it."),
    "too_few_records": ("Too few rows are left", "The contract's min_records says how many it takes."),
    "one_class": ("The target has a single class", "Look at positive_above and at the cohort."),
    "package_invalid": ("The package cannot be used", "model.py defines one subclass of koinon.Model."),
    "learner_invalid": ("The model does not keep to koinon.Model", "Its documentation: help(koinon.Model)."),
    "nan_loss": ("The loss is not a finite number", "Try a smaller learning_rate; look for log(0) and division by 0."),
    "nan_update": ("The trained weights are not finite", "Try a smaller learning_rate."),
    "nan_prediction": ("A prediction is not a finite number", "Look at predict."),
    "prediction_range": ("A prediction is no probability", "predict gives values between 0 and 1 in classification."),
    "strategy": ("The strategy does not fit the model", "Scaffold needs plain SGD: leave optimizer as it is."),
}


def explain(error: Any, agreed: Contract) -> errors.KoinonError:
    """A trainer's error in full: here it is your own data and code, so its text is shown."""
    what, todo = _ADVICE.get(error.code, (f"It failed ({error.code})", "koinon check --debug shows more."))
    text = str(error.text).strip().splitlines()
    detail = f": {text[-1][:300]}." if text and text[-1].lower() not in what.lower() else "."
    shapes = " and ".join("×".join(map(str, shape)) for shape in error.shapes)
    if shapes:
        todo = f"Shapes: {shapes}; the contract gives {agreed.inputs()} inputs. {todo}"
    return errors.Invalid(what + detail, where=error.place or ", ".join(error.names), todo=todo)


def made_up(agreed: Contract, path: Path, rows: int = ROWS) -> Path:
    """A table drawn from the contract alone, its target leaning on the numeric columns. No one's data."""
    draw = random.Random(agreed.split.seed)
    features = [column for column in agreed.columns if column.role == "feature"]
    target = next(column for column in agreed.columns if column.role == "target")
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in (*features, target)])
        for _ in range(rows):
            cells = [_cell(column, draw) for column in features]
            pull = sum(position for _, position in cells) / max(1, len(cells)) + draw.gauss(0, 0.05)
            writer.writerow([*(text for text, _ in cells), _outcome(target, agreed, pull)])
    return path


def _cell(column: Column, draw: random.Random) -> tuple[str, float]:
    """A plausible cell and where it lies between the column's ends, 0 to 1."""
    if column.levels:
        position = draw.randrange(len(column.levels))
        return str(column.levels[position]), position / max(1, len(column.levels) - 1)
    low, high = _ends(column)
    value = draw.uniform(low, high)
    number = round(value) if column.type == "integer" else round(value, 6)
    return str(number), (value - low) / (high - low) if high > low else 0.5


def _ends(column: Column) -> tuple[float, float]:
    low = float(column.minimum) if column.minimum is not None else None
    high = float(column.maximum) if column.maximum is not None else None
    if low is None:
        low = high - 100 if high is not None else 0.0
    return low, high if high is not None else low + 100


def _outcome(target: Column, agreed: Contract, pull: float) -> str:
    low, high = _ends(target)
    if agreed.target.positive_above is None:
        value = low + min(1.0, max(0.0, pull)) * (high - low)
        return str(round(value) if target.type == "integer" else round(value, 6))
    above = Decimal(agreed.target.positive_above)
    if target.levels:
        sides = [level for level in target.levels if (Decimal(level) > above) == (pull > 0.5)]
        return str(sides[0] if sides else target.levels[0])
    inside = Decimal(str(high)) if target.maximum is not None else above + 1
    return str(min(above + 1, inside)) if pull > 0.5 else str(above if target.type != "integer" else int(above))
