"""Metrics that travel masked: what words a site sends, and what the federation may read from their sum.

A site sends, per metric, its own value (so that the sum over sites gives the unweighted mean) and what the
pooled value needs. AUC is binned: 64 bins of the predicted probability per class, error below one bin.
"""

import math
from collections.abc import Mapping, Sequence

from koinon.domain.errors import Invalid
from koinon.domain.layout import Segment

BINS = 64
MAX_LOSS = "100"
_NAMES = ("accuracy", "auc", "loss", "mse", "mae")
HEADLINE = {"classification": "accuracy", "regression": "mse"}


def default(task: str) -> tuple[str, ...]:
    return ("accuracy", "auc", "loss") if task == "classification" else ("loss", "mse", "mae")


def segments(names: Sequence[str], row_cap: int) -> tuple[Segment, ...]:
    """The metrics' part of the vector. `row_cap` bounds the rows one site may count for."""
    rows = str(row_cap)
    result = [
        Segment(name="sites", size=1, bound="1", whole=True),
        Segment(name="rows", size=1, bound=rows, whole=True),
    ]
    for name in names:
        if name not in _NAMES:
            raise Invalid(f'There is no metric "{name}".', where="metrics", todo=f"There are {', '.join(_NAMES)}.")
        bound = "1" if name in ("accuracy", "auc") else MAX_LOSS
        result.append(Segment(name=f"{name}.site", size=1, bound=bound))
        if name == "auc":
            result.append(Segment(name="auc.sites", size=1, bound="1", whole=True))
            result.append(Segment(name="auc.negatives", size=BINS, bound=rows, whole=True))
            result.append(Segment(name="auc.positives", size=BINS, bound=rows, whole=True))
        elif name == "accuracy":
            result.append(Segment(name="accuracy.correct", size=1, bound=rows, whole=True))
        else:
            result.append(Segment(name=f"{name}.total", size=1, bound=str(int(MAX_LOSS) * row_cap)))
    return tuple(result)


def binned_auc(negatives: Sequence[float], positives: Sequence[float]) -> float | None:
    """Area under the ROC curve of two histograms; ties within a bin count half. None with one class.

    Mann-Whitney U over bins (Hanley and McNeil 1982, Radiology 143:29).
    """
    total = sum(negatives) * sum(positives)
    if total == 0:
        return None
    below, wins = 0.0, 0.0
    for negative, positive in zip(negatives, positives, strict=True):
        wins += positive * (below + negative / 2)
        below += negative
    return wins / total


def words(names: Sequence[str], evaluation: Mapping[str, object]) -> dict[str, list[float]]:
    """A site's `evaluation` (rows, and per metric what the trainer reports) as values of its segments.

    `evaluation` has `rows`, `correct`, `accuracy`, `loss`, `mse`, `mae` as numbers and `negatives`,
    `positives` as lists of BINS counts, as far as the metrics ask for them. Raises Invalid if one is
    missing or not finite.
    """

    def number(key: str) -> float:
        value = evaluation.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Invalid(f"The evaluation has no finite {key}.", where=f"metrics.{key}")
        return float(value)

    def histogram(key: str) -> list[float]:
        value = evaluation.get(key)
        if not isinstance(value, list) or len(value) != BINS:
            raise Invalid(f"The evaluation has no {BINS} bins of {key}.", where=f"metrics.{key}")
        return [float(count) for count in value]

    rows = number("rows")
    result: dict[str, list[float]] = {"sites": [1.0], "rows": [rows]}
    for name in names:
        if name == "auc":
            negatives, positives = histogram("negatives"), histogram("positives")
            area = binned_auc(negatives, positives)
            result["auc.site"] = [area or 0.0]
            result["auc.sites"] = [float(area is not None)]
            result["auc.negatives"], result["auc.positives"] = negatives, positives
            continue
        result[f"{name}.site"] = [number(name)]
        if name == "accuracy":
            result["accuracy.correct"] = [number("correct")]
        else:
            result[f"{name}.total"] = [min(number(name), float(MAX_LOSS)) * rows]
    return result


def read(names: Sequence[str], opened: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """What the opened sums say: per metric `mean` (unweighted over sites) and `pooled` (over rows)."""
    sites, rows = opened["sites"][0], opened["rows"][0]
    result: dict[str, dict[str, float]] = {}
    for name in names:
        values: dict[str, float] = {}
        counted = opened["auc.sites"][0] if name == "auc" else sites
        if counted:
            values["mean"] = opened[f"{name}.site"][0] / counted
        if name == "auc":
            area = binned_auc(opened["auc.negatives"], opened["auc.positives"])
            if area is not None:
                values["pooled"] = area
        elif rows:
            total = "accuracy.correct" if name == "accuracy" else f"{name}.total"
            values["pooled"] = opened[total][0] / rows
        result[name] = values
    return result
