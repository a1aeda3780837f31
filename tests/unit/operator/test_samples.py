"""The manifests in operators/samples are what they say."""

from pathlib import Path
from typing import Any

import yaml

from koinon_operator import plan, verify
from koinon_operator.documents import read_grant, read_hospital
from koinon_operator.plan import State
from tests.unit.operator import samples

FOLDER = Path(__file__).parents[3] / "operators/samples"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return samples.seen(found)


def test_the_sample_grant_is_signed_by_the_sample_site_and_fits_it() -> None:
    hospital, consent = read_hospital(read("site.yaml")), read_grant(read("grant.yaml"))
    verdict = verify.check(consent, hospital)
    assert verdict.problem is None
    assert verdict.project == "heart"
    (judged,) = plan.make([consent], {consent.uid: verdict}, [], 1_900_000_000).grants
    assert judged.state is State.VALID


def test_the_sample_grants_name_is_that_of_the_command() -> None:
    found = read("grant.yaml")
    assert found["metadata"]["name"] == f"heart-{found['spec']['manifest'][:8]}"
