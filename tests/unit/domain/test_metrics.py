import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from koinon.domain import metrics
from koinon.domain.errors import Invalid

scores = st.lists(st.tuples(st.integers(0, metrics.BINS - 1), st.booleans()), min_size=2, max_size=60)


@given(scores)
def test_binned_auc_is_the_area_under_the_curve_of_the_bins(rows: list[tuple[int, bool]]) -> None:
    bins, labels = np.array([b for b, _ in rows]), np.array([y for _, y in rows])
    negatives = np.bincount(bins[~labels], minlength=metrics.BINS).tolist()
    positives = np.bincount(bins[labels], minlength=metrics.BINS).tolist()
    area = metrics.binned_auc(negatives, positives)
    if labels.all() or not labels.any():
        assert area is None
    else:
        assert area == pytest.approx(roc_auc_score(labels, bins))


def evaluation(rows: int, correct: int) -> dict[str, object]:
    histogram = [0.0] * metrics.BINS
    return {
        "rows": rows,
        "correct": correct,
        "accuracy": correct / rows,
        "loss": 0.5,
        "negatives": [float(rows - correct), *histogram[1:]],
        "positives": [*histogram[1:], float(correct)],
    }


def test_the_mean_is_over_sites_and_the_pooled_value_over_rows() -> None:
    names = metrics.default("classification")
    sites = [metrics.words(names, evaluation(100, 90)), metrics.words(names, evaluation(10, 1))]
    opened = {key: np.sum([site[key] for site in sites], axis=0).tolist() for key in sites[0]}
    read = metrics.read(names, opened)
    assert read["accuracy"]["mean"] == pytest.approx((0.9 + 0.1) / 2)
    assert read["accuracy"]["pooled"] == pytest.approx(91 / 110)
    assert read["auc"] == {"mean": 1.0, "pooled": 1.0}
    assert read["loss"]["pooled"] == pytest.approx(0.5)


def test_a_words_names_are_its_segments() -> None:
    for names in (metrics.default("classification"), metrics.default("regression")):
        sent = metrics.words(names, evaluation(10, 5) | {"mse": 1.0, "mae": 1.0})
        declared = metrics.segments(names, 1000)
        assert {s.name: s.size for s in declared} == {key: len(value) for key, value in sent.items()}


@pytest.mark.parametrize("change", [{"loss": float("nan")}, {"loss": "x"}, {"rows": True}, {"negatives": [1.0]}])
def test_what_is_not_a_finite_number_is_named(change: dict[str, object]) -> None:
    with pytest.raises(Invalid, match=next(iter(change))):
        metrics.words(metrics.default("classification"), evaluation(10, 5) | change)
