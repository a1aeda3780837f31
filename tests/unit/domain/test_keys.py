import pytest

from koinon.domain import keys
from koinon.domain.errors import Invalid, Untrusted
from koinon.domain.keys import Certificate, SigningKey

ROOT = SigningKey(b"r" * 32)
OTHER = SigningKey(b"o" * 32)
CERTIFICATE = Certificate(
    site="lyon", epoch=1, signing=OTHER.public, recipient="age1x", not_before=100, not_after=200
).signed(ROOT)


def test_a_certificate_holds_for_its_site_root_and_time() -> None:
    CERTIFICATE.check_for(ROOT.public, "lyon", 150)
    for root, site, now, words in [
        (OTHER.public, "lyon", 150, "not by key"),
        (ROOT.public, "nice", 150, "lyon's, not nice's"),
        (ROOT.public, "lyon", 99, "not valid now"),
        (ROOT.public, "lyon", 201, "not valid now"),
    ]:
        with pytest.raises(Untrusted, match=words):
            CERTIFICATE.check_for(root, site, now)


@pytest.mark.parametrize("change", [{"epoch": 2}, {"signing": ROOT.public}, {"not_after": 201}, {"recipient": "age1y"}])
def test_any_changed_field_breaks_the_signature(change: dict[str, object]) -> None:
    with pytest.raises(Untrusted):
        CERTIFICATE.model_copy(update=change).check(ROOT.public)


def test_a_signature_for_one_purpose_is_none_for_another() -> None:
    signature = ROOT.sign("grant", {"a": 1})
    keys.verify(ROOT.public, "grant", {"a": 1}, signature)
    with pytest.raises(Untrusted):
        keys.verify(ROOT.public, "revocation", {"a": 1}, signature)


@pytest.mark.parametrize("garbage", ["", "zz", "ab" * 64, "ab" * 63])
def test_garbage_is_untrusted_and_never_a_crash(garbage: str) -> None:
    with pytest.raises(Untrusted):
        keys.verify(ROOT.public, "grant", {}, garbage)
    with pytest.raises(Untrusted):
        keys.verify(garbage, "grant", {}, ROOT.sign("grant", {}))


def test_a_secret_shows_nowhere() -> None:
    secret = b"\x07secret key of thirty-two bytes!"
    key = SigningKey(secret)
    assert secret.hex() not in repr(key)
    assert "secret" not in repr(key)
    with pytest.raises(Invalid) as caught:
        SigningKey(secret + b"!")
    assert "secret" not in str(caught.value)


def test_a_fingerprint_can_be_read_out() -> None:
    groups = keys.fingerprint(ROOT.public).split("-")
    assert len(groups) == 8
    assert all(len(group) == 4 for group in groups)
    assert keys.fingerprint(ROOT.public) != keys.fingerprint(OTHER.public)
