"""Signed requests: what is covered, whose key counts, and which clock."""

from collections.abc import Callable

import pytest

from koinon.domain import httpsig
from koinon.domain.errors import Unauthenticated
from koinon.domain.keys import SigningKey

KEY = SigningKey(b"k" * 32)
URL = "https://hub.example.org/v1/sites/me/tasks?after=3&wait=25"
NOW = 1_800_000_000.0


def signed() -> dict[str, str]:
    return httpsig.sign("post", URL, "lyon", KEY, created=NOW, body=b"{}")


def verified(headers: dict[str, str], *, method: str = "POST", url: str = URL, now: float = NOW,
             public: Callable[[str], str] = lambda site: KEY.public) -> httpsig.Verified:  # fmt: skip
    return httpsig.verify(method, url, headers, public, now=now)


def test_what_was_signed_verifies_behind_any_host_and_scheme() -> None:
    url = "http://10.0.0.7:8470/v1/sites/me/tasks?after=3&wait=25"
    lower = {name.lower(): value for name, value in signed().items()}
    found = verified(lower, url=url)
    assert (found.site, found.created) == ("lyon", int(NOW))
    assert found.digest == signed()["Content-Digest"]


def test_the_library_signs_alike_for_a_body_and_its_hash() -> None:
    import hashlib

    streamed = httpsig.sign("POST", URL, "lyon", KEY, created=NOW, sha256=hashlib.sha256(b"{}").digest())
    assert streamed == signed()


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"url": URL.replace("after=3", "after=4")},
        {"url": URL.replace("/tasks", "/grants")},
        {"public": lambda site: SigningKey(b"x" * 32).public},
    ],
)
def test_other_methods_addresses_and_keys_do_not_verify(change: dict[str, object]) -> None:
    with pytest.raises(Unauthenticated, match="does not hold"):
        verified(signed(), **change)  # type: ignore[arg-type]


def test_another_digest_or_a_missing_part_does_not_verify() -> None:
    other = httpsig.sign("POST", URL, "lyon", KEY, created=NOW, body=b"[]")
    for headers in (
        signed() | {"Content-Digest": other["Content-Digest"]},
        {},
        {name: value for name, value in signed().items() if name != "Signature"},
        signed() | {"Signature": "nonsense"},
        signed() | {"Signature-Input": signed()["Signature-Input"].replace(' "@query"', "")},
        signed() | {"Signature-Input": signed()["Signature-Input"].replace("koinon", "other")},
    ):
        with pytest.raises(Unauthenticated):
            verified(headers)


@pytest.mark.parametrize(("offset", "words"), [(301, "301 s behind"), (-301, "301 s ahead of")])
def test_a_clock_that_is_off_is_told_by_how_much(offset: float, words: str) -> None:
    with pytest.raises(Unauthenticated, match=words):
        verified(signed(), now=NOW + offset)
    assert verified(signed(), now=NOW + 299).site == "lyon"


def test_an_unknown_site_is_named() -> None:
    def unknown(site: str) -> str:
        raise Unauthenticated(f"No site {site} is enrolled here.")

    with pytest.raises(Unauthenticated, match="No site lyon"):
        verified(signed(), public=unknown)
