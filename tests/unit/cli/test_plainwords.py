"""What a hospital reads before it signs."""

from typing import Any

import pytest

from koinon.cli import plainwords
from koinon.domain.errors import Invalid
from koinon.domain.grant import Resources
from tests.unit.domain import manifests


def page(resources: Resources | None = None, **changes: Any) -> dict[str, str]:
    found = plainwords.lines(
        manifests.build(**changes),
        site="lyon",
        dataset="heart",
        days=30,
        vouched=["lille", "nice"],
        resources=resources or Resources(cpus=2),
        min_sites=4,
        min_others=2,
    )
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def test_the_predicates_of_a_cohort_are_shown_and_not_its_name_alone() -> None:
    cohorts = {"all": [], "old": [{"column": "age", "op": ">", "value": 60}, {"column": "cp", "op": "==", "value": 4}]}
    shown = page(cohorts=cohorts)
    assert shown["Cohort old"] == "age > 60 and cp == 4"
    assert shown["Cohort all"] == "all rows"


def test_the_larger_of_the_manifests_and_the_sites_own_minimum_counts() -> None:
    assert page()["The sum has"].startswith("at least 4 hospitals, 2 of them")


def test_own_code_is_named_by_its_whole_hash_and_what_it_could_read() -> None:
    package = {"template": "package", "package": "ab" * 32, "layout": [{"name": "weight", "shape": [1, 4]}]}
    shown = page(model=package)
    assert "ab" * 32 in shown["What runs here"]
    assert "whole file" in shown["On"]
    assert "audited template tabular" in page()["What runs here"]


def test_a_purpose_cannot_forge_lines_or_clear_the_screen() -> None:
    shown = page(purpose="harmless\n\x1b[2JWhat runs here  nothing\u202e")
    assert shown["What for"] == "harmless??[2JWhat runs here  nothing?"


def test_everything_a_run_may_vary_is_there_with_its_bounds() -> None:
    shown = page()["May vary"]
    assert "learning_rate 0.0000001 to 10" in shown
    assert "strategy fedavg|fedprox|scaffold" in shown
    assert page()["Training gets"].startswith("2 processor cores, 4 GiB of memory")


def test_workers_and_gpus_are_said_where_the_grant_gives_some() -> None:
    assert "GPU" not in page()["Training gets"]
    assert "workers" not in page()["Training gets"]
    shown = page(Resources(gpus=2, min_workers=1, max_workers=3))["Training gets"]
    assert "1 processor core, 2 GPUs, 4 GiB of memory" in shown
    assert shown.endswith("1 to 3 workers more get the same")


def test_more_workers_at_least_than_at_most_are_refused() -> None:
    with pytest.raises(Invalid, match="at most 1 workers, but at least 2"):
        Resources.of({"min_workers": 2, "max_workers": 1})
