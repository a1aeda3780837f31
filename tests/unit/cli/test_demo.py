"""The demonstration's figures and its page, from rounds made up here."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon.cli.demo import figures, page, plots
from koinon.cli.demo.holdings import Holdings
from koinon.cli.doctor import Finding
from koinon.client.progress import Step
from koinon.domain import errors

SITES = ("cleveland", "budapest", "zurich")
BASELINE = {"metric": "accuracy", "pooled": 0.73, "alone": dict.fromkeys(SITES, 0.6)}
HELD = Holdings([{"name": "ab" * 32, "bytes": 3_000, "kind": "result", "round": 3}], "not <sealed> to it", "ff" * 48, 2)


def _step(number: int, kind: str, score: float | None, **changes: Any) -> Step:
    fields: dict[str, Any] = {
        "round": number,
        "kind": kind,
        "model": number - 1,
        "metrics": {} if score is None else {"accuracy": score},
        "pooled": {},
        "seconds": {
            "train": 0.5,
            "keys": 0.1,
            "shares": 0.1,
            "masked": 0.1,
            "survivors": 0.1,
            "unmask": 0.1,
            "commit": 0.1,
        },
        "site_seconds": {site: {"train": 0.2 + 0.1 * i, "keys": 0.3} for i, site in enumerate(SITES)},
        "bytes": 2_432,
        "sites": SITES,
        "missing": (),
        "opened": 10.0 * number,
        "closed": 10.0 * number + 1.1,
    }
    return Step(**{**fields, **changes})


STEPS = [_step(0, "init", None), _step(1, "train", 0.5), _step(2, "train", 0.6), _step(3, "evaluate", 0.7)]


def _report() -> dict[str, Any]:
    return figures.report(STEPS, BASELINE, HELD, "cd" * 32)


def test_report_has_the_agreed_shape() -> None:
    report = json.loads(json.dumps(_report()))
    assert report["metric"] == {"name": "accuracy", "federated": 0.7, "pooled": 0.73, "alone": BASELINE["alone"]}
    assert [row["metric"] for row in report["rounds"]] == [0.6, 0.7]
    assert report["artifacts"] == [{"name": "ab" * 32, "bytes": 3_000}]


def test_a_rounds_parts_add_up_to_the_time_since_the_round_before() -> None:
    for row, wall in zip(_report()["rounds"], (10.0, 10.0), strict=True):
        assert sum(row["seconds"].values()) == pytest.approx(wall)


def test_overhead_is_all_but_the_slowest_sites_local_steps() -> None:
    seconds = figures.parts(STEPS[1], ended=None)
    assert seconds["local steps"] == pytest.approx(0.4)
    assert figures.overhead(seconds) == pytest.approx(1.1 - 0.4)


def test_a_site_that_dropped_out_is_not_the_slowest() -> None:
    step = _step(1, "train", 0.5, sites=("cleveland", "budapest"))
    assert figures.parts(step, ended=None)["local steps"] == pytest.approx(0.3)


def test_without_a_scored_final_model_there_is_no_report() -> None:
    with pytest.raises(errors.Failed, match="scored"):
        figures.report(STEPS[:3], BASELINE, HELD, "cd" * 32)


@given(st.lists(st.floats(0, 1), max_size=6), st.floats(0.001, 0.2))
def test_labels_never_overlap_and_keep_their_order(values: list[float], gap: float) -> None:
    places = plots.spread(values, gap)
    order = sorted(range(len(values)), key=lambda i: values[i])
    for before, after in itertools.pairwise(order):
        assert places[after] - places[before] >= gap * 0.999
    assert all(place >= value for place, value in zip(places, values, strict=True))


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(tmp_path: Path) -> None:
    walls = [Finding("wall network", "good", "none"), Finding("wall files", "warn", "MISSING <b>")]
    page.write(tmp_path / "r.html", _report(), page.About("fedavg", 42, walls, ("zurich",), {"rounds": 2}), HELD)
    text = (tmp_path / "r.html").read_text()
    assert not re.search(r'(src|href)="(?!#)', text.replace('xlink:href="#', ""))
    assert "@import" not in text
    assert "<script" not in text
    assert "not &lt;sealed&gt; to it" in text
    assert "MISSING &lt;b&gt;" in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    assert "$" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
