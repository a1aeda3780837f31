"""`kubectl koinon revoke` against an API server of a few lines."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from koinon.artifacts import keyfiles
from koinon.cli.kube import consent, hospital
from koinon.cli.kube.hospital import Hospital
from koinon.domain import objects
from tests.unit.operator import samples


class Kubectl:
    """Has one Grant, and takes its revocation for done."""

    def __init__(self, grant: dict[str, Any]) -> None:
        self.grant = grant
        self.patches: list[dict[str, Any]] = []

    def list(self, _kind: str) -> list[dict[str, Any]]:
        return [self.grant]

    def get(self, _kind: str, _name: str) -> dict[str, Any]:
        return {"status": {"conditions": [{"type": "Revoked", "status": "True"}]}}

    def run(self, *words: str) -> None:
        self.patches.append(json.loads(words[-1]))


def revoke(monkeypatch: pytest.MonkeyPatch, folder: Path, grant: dict[str, Any], *, now: float) -> list[dict[str, Any]]:
    """The patches that a clock of `now` makes."""
    kubectl = Kubectl(grant)
    found = Hospital(kubectl, "lyon", samples.site())  # type: ignore[arg-type]
    monkeypatch.setattr(hospital, "find", lambda *_: found)
    monkeypatch.setattr(time, "time", lambda: now)
    key = folder / "root.key"
    keyfiles.write_signing_key(key, samples.ROOT)
    consent.revoke("heart", key, wait=0.0, yes=True)
    return kubectl.patches


@pytest.mark.parametrize("late", [-3_600.0, 5.0])
def test_a_revocation_ends_the_grant_whatever_this_clock_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, late: float
) -> None:
    grant = samples.seen(samples.grant_resource())
    (patch,) = revoke(monkeypatch, tmp_path, grant, now=samples.NOW + late)
    signed = objects.revocation_of({**grant["spec"], **patch["spec"]})
    assert signed is not None
    signed.check(samples.ROOT.public)
    assert signed.time == max(grant["spec"]["notBefore"], samples.NOW + late)


def test_what_is_revoked_already_is_not_signed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    grant = samples.seen(samples.grant_resource(ended=samples.revocation(samples.grant())))
    assert revoke(monkeypatch, tmp_path, grant, now=samples.NOW + 5.0) == []
