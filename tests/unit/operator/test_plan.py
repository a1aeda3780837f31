"""Which Grants hold: signatures, times, revocations, renewals, and what does not fit the hospital."""

from typing import Any

import pytest

from koinon.domain.errors import Invalid
from koinon.domain.grant import Resources, Revocation
from koinon_operator import plan, verify
from koinon_operator.documents import Consent, read_grant, read_hospital
from koinon_operator.kinds import Object
from koinon_operator.plan import Plan, State
from tests.unit.domain import manifests
from tests.unit.operator import samples

NOW = samples.NOW
DAY = 86_400


def consent(resource: Object | None = None, name: str = "heart", **changes: Any) -> Consent:
    return read_grant(samples.seen(resource or samples.grant_resource(**changes), name=name))


def verdict(found: Consent, **site: Any) -> verify.Verdict:
    return verify.check(found, samples.hospital(**site))


def judge(*consents: Consent, now: float = NOW + 10, revocations: tuple[Revocation, ...] = (), **site: Any) -> Plan:
    hospital = samples.hospital(**site)
    own = [found.revocation for found in consents if found.revocation]
    verdicts = {found.uid: verify.check(found, hospital) for found in consents}
    return plan.make(list(consents), verdicts, [*own, *revocations], now)


def states(found: Plan) -> list[State]:
    return [grant.state for grant in found.grants]


def test_a_good_grant_governs_until_it_expires() -> None:
    found = judge(consent())
    assert states(found) == [State.VALID]
    assert found.governing is not None
    assert found.governing.project == "heart"
    assert found.next_change == NOW + 30 * DAY
    over = judge(consent(), now=NOW + 30 * DAY)
    assert states(over) == [State.EXPIRED]
    assert over.governing is None
    assert over.next_change is None


def test_a_grant_of_the_future_waits_for_its_time() -> None:
    found = judge(consent(now=NOW + 100))
    assert states(found) == [State.EARLY]
    assert found.next_change == NOW + 99
    assert judge(consent(now=NOW + 100), now=NOW + 99).governing is not None


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("BadSignature", {"root": manifests.ROOTS["nice"]}),
        ("UnknownDataset", {"dataset": "lungs"}),
        ("OverQuota", {"resources": Resources(cpus=65)}),
        ("OverQuota", {"resources": Resources(gpus=1)}),
        ("OverQuota", {"resources": Resources(memory=257 * 2**30)}),
        ("OverQuota", {"resources": Resources(min_workers=100, max_workers=100)}),
    ],
)
def test_what_is_wrong_is_named(reason: str, changes: dict[str, Any]) -> None:
    if "root" in changes:
        grant = samples.grant()
        resource = samples.grant_resource()
        resource["spec"]["signature"] = grant.signed(changes["root"]).signature
        found = verdict(consent(resource))
    else:
        found = verdict(consent(**changes))
    assert found.problem is not None
    assert found.problem.reason == reason
    assert len(found.problem.message) > 20


def test_any_changed_field_breaks_the_signature() -> None:
    for field, value in (("expires", NOW + 10**6), ("dataset", "lungs"), ("minSites", 4), ("minOthers", 3)):
        resource = samples.grant_resource()
        resource["spec"][field] = value
        found = verdict(consent(resource))
        assert found.forged
        assert found.problem is not None
        assert found.problem.reason == "BadSignature"
    resource = samples.grant_resource()
    resource["spec"]["resources"]["memory"] *= 2
    assert verdict(consent(resource)).forged


def test_a_grant_of_another_site_is_refused() -> None:
    found = verify.check(consent(), samples.hospital(root=manifests.ROOTS["nice"].public))
    assert found.problem is not None
    assert found.problem.reason == "BadSignature"
    other = read_hospital(samples.seen(samples.site(name="nice")))
    wrong = verify.check(consent(), other)
    assert wrong.problem is not None
    assert wrong.problem.reason == "WrongSite"


def test_a_document_must_be_the_one_that_was_signed_and_name_this_root() -> None:
    resource = samples.grant_resource()
    resource["spec"]["document"] = samples.manifest("another").encode().decode()
    found = verdict(consent(resource)).problem
    assert found is not None
    assert found.reason == "ManifestMismatch"
    resource["spec"]["document"] = "{"
    broken = verdict(consent(resource)).problem
    assert broken is not None
    assert broken.reason == "BadDocument"
    del resource["spec"]["document"]
    assert verdict(consent(resource)).problem is None


@pytest.mark.parametrize(
    ("pinned", "image", "matches"),
    [
        ("embedded", "anything:1", True),
        ("reg.example/koinon-worker@sha256:" + "a" * 64, "mirror.lyon/k/koinon-worker@sha256:" + "a" * 64, True),
        ("reg.example/koinon-worker@sha256:" + "a" * 64, "mirror.lyon/koinon-worker@sha256:" + "b" * 64, False),
        ("reg.example/koinon-worker@sha256:" + "a" * 64, "mirror.lyon/koinon-worker:1", False),
        ("reg.example:5000/koinon-worker:1", "mirror.lyon/k/koinon-worker:1", True),
        ("reg.example/koinon-worker:1", "mirror.lyon/koinon-worker:2", False),
    ],
)
def test_a_mirror_of_the_image_is_the_image(pinned: str, image: str, matches: bool) -> None:
    assert verify.image_matches(pinned, image) is matches


def test_a_revocation_ends_every_grant_that_started_before_it_whoever_carries_it() -> None:
    ended = samples.revocation(samples.grant(), now=NOW + 5)
    first = consent(samples.grant_resource(ended=ended), "first")
    renewed = consent(samples.grant_resource(now=NOW + 3), "renewed")
    assert states(judge(first, renewed)) == [State.REVOKED, State.REVOKED]
    assert states(judge(consent(), revocations=(ended,))) == [State.REVOKED]


def test_a_grant_that_was_signed_after_the_revocation_holds() -> None:
    ended = samples.revocation(samples.grant(), now=NOW + 5)
    again = consent(samples.grant_resource(now=NOW + 7, ended=ended))
    assert states(judge(again)) == [State.VALID]


def test_a_revocation_of_somebody_else_ends_nothing_but_stops_the_grant_it_hangs_on() -> None:
    forged = samples.revocation(samples.grant(), root=manifests.ROOTS["nice"], now=NOW + 5)
    assert not verify.trusted_revocation(forged, samples.hospital())
    found = consent(samples.grant_resource(ended=forged))
    problem = verdict(found).problem
    assert problem is not None
    assert problem.reason == "BadRevocation"
    assert judge(found).governing is None


def test_the_newest_valid_grant_of_a_project_governs_and_the_other_says_which() -> None:
    old, new = consent(name="old"), consent(samples.grant_resource(now=NOW + 5), "new")
    found = judge(new, old)
    assert states(found) == [State.VALID, State.SUPERSEDED]
    assert found.governing is not None
    assert found.governing.consent is new
    assert found.grants[1].problem is not None
    assert "new" in found.grants[1].problem.message


def test_an_expired_grant_beside_a_valid_one_ends_nothing() -> None:
    short = consent(samples.grant_resource(days=1), "short")
    long = consent(samples.grant_resource(), "long")
    found = judge(short, long, now=NOW + 2 * DAY)
    assert states(found) == [State.EXPIRED, State.VALID]
    assert found.governing is not None


def test_two_projects_whose_hashes_begin_alike_do_not_share_a_cluster() -> None:
    one, other = consent(name="one"), consent(samples.grant_resource(samples.manifest("other"), now=NOW + 5), "other")
    found = plan.make([one, other], {c.uid: verdict(c) for c in (one, other)}, [], NOW + 10)
    assert states(found) == [State.VALID, State.INVALID]
    assert found.grants[1].problem is not None
    assert found.grants[1].problem.reason == "NameCollision"


def test_a_resource_with_an_unknown_field_is_not_read() -> None:
    resource = samples.grant_resource()
    resource["spec"]["resources"]["fitHours"] = 1
    with pytest.raises(Invalid, match="fit_hours"):
        read_grant(samples.seen(resource))


def test_a_site_is_read_with_its_quantities() -> None:
    quota = samples.hospital(quota={"cpu": "1500m", "memory": "1Gi", "pods": 3}).quota
    assert (float(quota.cpu), quota.memory, quota.gpus, quota.pods) == (1.5, 2**30, 0, 3)
    broken = samples.site()
    del broken["spec"]["hub"]
    with pytest.raises(Invalid, match="hub"):
        read_hospital(samples.seen(broken))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hub.url", "https://hub.example.org:84700"),
        ("hub.url", "https://hub.example.org:0"),
        ("hub.url", "https://hub:abc"),
        ("hub.url", "https://[::1"),
        ("hub.url", "https://hub..example.org"),
        ("hub.url", f"https://{'a' * 64}.example.org"),
        ("hub.cidrs", ["203.0.113.7/33"]),
        ("egressProbes", ["intranet.example:80"]),
        ("egressProbes", ["10.0.0.1:65536"]),
        ("egressProbes", ["10.0.0.1:0"]),
        ("egressProbes", ["10.0.0.1"]),
        ("egressProbes", ["10.0.0.1:53/tcp"]),
    ],
)
def test_addresses_that_cannot_be_tried_are_refused_by_name(field: str, value: Any) -> None:
    made = samples.site()
    *parents, last = field.split(".")
    at = made["spec"]
    for parent in parents:
        at = at[parent]
    at[last] = value
    with pytest.raises(Invalid) as caught:
        read_hospital(samples.seen(made))
    assert field in caught.value.where
    assert caught.value.todo


@pytest.mark.parametrize(
    "url", ["https://hub.example.org.:8470/x", "https://[fd00::1]", "http://192.0.2.1:80", "https://hôpital.example"]
)
def test_addresses_that_can_be_tried_are_kept_as_they_are(url: str) -> None:
    probes = ("10.0.0.1:443", "[fd00::1]:53/udp")
    found = samples.hospital(hub={"url": url, "cidrs": ["203.0.113.7/24"]}, egressProbes=list(probes))
    assert (found.hub_url, found.hub_cidrs, found.probes) == (url, ("203.0.113.7/24",), probes)
