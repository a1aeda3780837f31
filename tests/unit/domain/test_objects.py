"""A grant survives the way through a custom resource, signature and all."""

import json

import pytest

from koinon.agent import consents
from koinon.domain import objects
from koinon.domain.errors import Invalid, Untrusted
from koinon.domain.grant import Grant, Resources
from koinon.domain.manifest import Manifest
from tests.unit.domain import manifests

NOW = 1_700_000_000
ROOT = manifests.ROOTS["lyon"]


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return manifests.build()


@pytest.fixture(scope="module")
def grant(manifest: Manifest) -> Grant:
    peers = [m.site for m in manifest.members if m.site != "lyon"]
    resources = Resources(fit_seconds=60, max_workers=3)
    return consents.grant(manifest, ROOT, "lyon", dataset="heart", vouched=peers, days=1, now=NOW, resources=resources)


def test_round_trip_keeps_the_signature(manifest: Manifest, grant: Grant) -> None:
    spec = json.loads(json.dumps(objects.grant_object(grant, manifest, "lyon")))["spec"]
    assert {"notBefore", "minSites", "resources"} <= set(spec)
    assert {"fitSeconds", "maxWorkers"} <= set(spec["resources"])
    read = objects.grant_of(spec)
    assert read == grant
    read.check(ROOT.public)
    assert Manifest.parse(spec["document"]) == manifest


def test_a_changed_field_breaks_the_signature(manifest: Manifest, grant: Grant) -> None:
    spec = objects.grant_object(grant, manifest, "lyon")["spec"]
    with pytest.raises(Untrusted):
        objects.grant_of({**spec, "expires": spec["expires"] + 1}).check(ROOT.public)


def test_names_of_hospitals_are_not_respelled(manifest: Manifest) -> None:
    names = tuple(m.site for m in manifest.members)
    odd = manifest.model_copy(update={"members": tuple(
        m.model_copy(update={"site": "saint-malo"}) if m.site == names[-1] else m for m in manifest.members
    )})  # fmt: skip
    signed = consents.grant(odd, ROOT, "lyon", dataset="heart", vouched=["saint-malo"], days=1, now=NOW)
    assert objects.grant_of(objects.grant_object(signed, odd, "lyon")["spec"]) == signed


def test_revocation(manifest: Manifest, grant: Grant) -> None:
    spec = objects.grant_object(grant, manifest, "lyon")["spec"]
    assert objects.revocation_of(spec) is None
    signed = consents.revocation(grant, ROOT, now=NOW + 5)
    patch = json.loads(objects.revocation_patch(signed))
    assert objects.revocation_of({**spec, **patch["spec"]}) == signed


def test_an_unknown_field_is_named(manifest: Manifest, grant: Grant) -> None:
    spec = objects.grant_object(grant, manifest, "lyon")["spec"]
    with pytest.raises(Invalid, match="fit_hours"):
        objects.grant_of({**spec, "resources": {**spec["resources"], "fitHours": 3}})
