"""What is said on a Grant of its end."""

from koinon.domain.grant import Revocation
from koinon_operator import plan, status, verify
from koinon_operator.documents import read_grant
from koinon_operator.kinds import Object
from koinon_operator.reconcile.grant_status import Facts, compose
from koinon_operator.reconcile.removal import Left
from tests.unit.operator import samples

NOW = samples.NOW + 100.0
EARLIER = samples.revocation(samples.grant(now=samples.NOW - 60), now=samples.NOW - 60)  # of a grant before this one


def revoked(ended: Revocation | None, resource: Object | None = None) -> tuple[str, str, str]:
    """Status, reason and message of the condition."""
    resource = samples.seen(resource or samples.grant_resource(ended=ended))
    consent = read_grant(resource)
    verdict = verify.check(consent, samples.hospital())
    ending = [consent.revocation] if consent.revocation and not verdict.forged else []
    found = plan.make([consent], {consent.uid: verdict}, ending, NOW)
    facts = Facts(resource, found.grants[0], found, NOW, problem=verdict.problem, left=Left())
    told = status.find(compose(facts), "Revoked") or {}
    return told["status"], told["reason"], told["message"]


def test_a_revocation_that_a_clock_behind_signed_is_told_with_what_to_do() -> None:
    truth, reason, message = revoked(EARLIER)
    assert (truth, reason) == ("False", "RevocationOlder")
    assert status.time_text(samples.NOW - 60) in message
    assert "kubectl koinon revoke" in message


def test_a_revocation_of_this_grant_ends_it_and_without_one_nothing_is_told() -> None:
    assert revoked(samples.revocation(samples.grant()))[:2] == ("True", "Revoked")
    assert revoked(None)[:2] == ("False", "NotRevoked")


def test_of_a_grant_that_does_not_hold_it_is_not_said_that_it_does() -> None:
    resource = samples.grant_resource(ended=EARLIER)
    resource["spec"]["signature"] = "0" * 128
    assert revoked(None, resource)[:2] == ("False", "NotRevoked")
