"""Tokens, consents and denial targets: what agent and pods are told."""

import base64
import hashlib
import hmac
import json

import pytest

from koinon.domain.errors import Invalid
from koinon.domain.grant import Grant, Revocation
from koinon_operator.objects import consents, denial, tokens
from tests.unit.operator import samples

SECRET = bytes(range(32))
OWNER = {"apiVersion": "koinon.dev/v1alpha1", "kind": "Site", "name": "lyon", "uid": "u"}


def test_a_token_is_the_hmac_of_the_manifests_hash() -> None:
    manifest = samples.manifest().digest()
    expected = hmac.new(SECRET, manifest.encode("ascii"), hashlib.sha256).hexdigest()
    assert tokens.token(SECRET, manifest) == expected
    made = tokens.work_secret("lyon-work", SECRET, [manifest])
    assert {key: base64.b64decode(value).decode() for key, value in made["data"].items()} == {manifest[:12]: expected}


def test_the_secret_of_a_project_is_not_told_to_another() -> None:
    one, other = (samples.manifest(name).digest() for name in ("one", "other"))
    data = tokens.work_secret("lyon-work", SECRET, [one, other])["data"]
    assert data[one[:12]] != data[other[:12]]
    assert base64.b64encode(SECRET).decode() not in str(data)


def test_nothing_is_written_as_empty_since_the_api_server_would_leave_it_out() -> None:
    assert "data" not in tokens.work_secret("lyon-work", SECRET, [])
    assert "data" not in consents.config_map("lyon", [], [], owner=OWNER)


def test_the_root_secret_is_read_back_and_a_short_one_refused() -> None:
    made = tokens.root_secret("lyon", SECRET, owner=OWNER)
    assert tokens.read_root(made) == SECRET
    assert made["metadata"]["ownerReferences"] == [OWNER]
    for data in ({}, {"secret": base64.b64encode(SECRET[:31]).decode()}, {"secret": "no base64!"}, None):
        with pytest.raises(Invalid, match="has no key secret of 32 bytes"):
            tokens.read_root({"data": data})


def test_consents_are_the_signed_documents_byte_for_byte() -> None:
    grant = samples.grant()
    first, last = (samples.revocation(grant, now=samples.NOW + seconds) for seconds in (1, 2))
    data = consents.config_map("lyon", [grant], [last, first], owner=OWNER)["data"]
    assert sorted(data) == [f"grants.{grant.manifest}.json", f"revocations.{grant.manifest}.json"]
    read = Grant.parse(data[f"grants.{grant.manifest}.json"])
    read.check(samples.ROOT.public)
    assert read == grant
    assert Revocation.parse(data[f"revocations.{grant.manifest}.json"]) == last


def test_kept_revocations_survive_and_rubbish_beside_them_does_not_hurt() -> None:
    ended = samples.revocation(samples.grant())
    made = consents.config_map("lyon", [], [ended], owner=OWNER)
    made["data"]["revocations.rubbish.json"] = "{"
    made["data"]["revocations.other.json"] = json.dumps({"a": 1})
    assert consents.kept_revocations(made) == [ended]
    assert consents.kept_revocations(None) == []
    assert consents.kept_revocations(consents.config_map("lyon", [], [], owner=OWNER)) == []


@pytest.mark.parametrize(
    ("url", "cidrs", "addresses", "expected"),
    [
        ("https://hub.example", ["203.0.113.7/32"], [], ["203.0.113.7:443"]),
        ("https://hub.example:8470", ["203.0.113.7/32"], ["203.0.113.7"], ["203.0.113.7:8470"]),
        ("http://hub.example", ["203.0.113.0/24"], ["203.0.113.9"], ["203.0.113.9:80", "203.0.113.1:80"]),
        ("https://hub.example", ["2001:db8::7/128"], [], ["[2001:db8::7]:443"]),
        ("https://hub.example", ["203.0.113.4/31"], [], ["203.0.113.4:443", "203.0.113.5:443"]),
    ],
)
def test_the_hub_is_tried_at_its_addresses(
    url: str, cidrs: list[str], addresses: list[str], expected: list[str]
) -> None:
    assert denial.hub_targets(url, cidrs, addresses) == expected


def test_dns_is_tried_over_both_transports() -> None:
    assert denial.dns_targets(["10.96.0.10", "fd00::a"]) == [
        "10.96.0.10:53",
        "10.96.0.10:53/udp",
        "[fd00::a]:53",
        "[fd00::a]:53/udp",
    ]


def test_targets_are_one_text_without_repetition() -> None:
    made = denial.config_map("lyon-work", ["b:1", "a:1", "b:1"])
    assert made["data"] == {"targets": "a:1 b:1"}
