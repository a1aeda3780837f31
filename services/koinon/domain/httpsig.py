"""Signatures of a site's HTTP requests (RFC 9421), the same for the agent that signs and the hub that checks.

Covered are method, path, query and the digest of the body (RFC 9530), so that a request passes proxies that
rewrite scheme and host. The key id is the site's name. A request may be repeated within the window: every
request of a site is idempotent.
"""

import base64
import datetime
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    algorithms,
)

from koinon.domain.errors import Unauthenticated
from koinon.domain.keys import SigningKey

LABEL = "koinon"
COVERED = ("@method", "@path", "@query", "content-digest")
WINDOW = 300  # seconds that a site's clock may differ from the hub's


@dataclass
class _Message:
    """What the library reads of a request. `url` is absolute and percent-encoded as on the wire."""

    method: str
    url: str
    headers: dict[str, str]


class _Keys(HTTPSignatureKeyResolver):
    def __init__(self, private: SigningKey | None, public: Callable[[str], str] | None) -> None:
        self._private = private
        self._public = public

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        assert self._private is not None
        return Ed25519PrivateKey.from_private_bytes(self._private.secret())

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        assert self._public is not None
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self._public(key_id)))


class _Verifier(HTTPMessageVerifier):
    """The library's verifier with the hub's clock, and an answer that tells a site how far its own is off."""

    def __init__(self, keys: _Keys, now: float) -> None:
        super().__init__(signature_algorithm=algorithms.ED25519, key_resolver=keys)
        self._now = now

    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
        created = sig_input.params.get("created")
        if type(created) is not int:
            raise InvalidSignature("it does not say when it was created")
        offset = created - self._now
        if abs(offset) > WINDOW:
            side = "ahead of" if offset > 0 else "behind"
            raise Unauthenticated(
                f"The site's clock is {abs(offset):.0f} s {side} the hub's; at most {WINDOW} s are accepted.",
                where="Signature-Input: created",
                todo="Set the site's clock (NTP), then try again.",
            )


def content_digest(sha256: bytes) -> str:
    """The Content-Digest header (RFC 9530) of a body with this SHA-256 (32 bytes)."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def sign(
    method: str, url: str, site: str, key: SigningKey, *, created: float, body: bytes = b"", sha256: bytes | None = None
) -> dict[str, str]:
    """The headers Content-Digest, Signature-Input and Signature for a request of `site`.

    `url` is absolute and percent-encoded as it goes over the wire (httpx: `str(request.url)`). Give `body`, or the
    SHA-256 of a body that is streamed.
    """
    digest = sha256 if sha256 is not None else hashlib.sha256(body).digest()
    message = _Message(method.upper(), url, {"Content-Digest": content_digest(digest)})
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=_Keys(key, None))
    signer.sign(
        message,
        key_id=site,
        created=datetime.datetime.fromtimestamp(int(created), tz=datetime.UTC),
        label=LABEL,
        tag=LABEL,
        covered_component_ids=COVERED,
        use_existing_digest=True,
    )
    return message.headers


@dataclass(frozen=True)
class Verified:
    """Who signed, when by its own clock, and the Content-Digest that its body must have."""

    site: str
    created: int
    digest: str


def verify(method: str, url: str, headers: Mapping[str, str], public: Callable[[str], str], *, now: float) -> Verified:
    """Checks a request's signature; the caller compares the body with `digest` before it acts on it.

    `public` gives the signing key (hex) that belongs to a key id, or raises. Raises Unauthenticated.
    """
    message = _Message(method, url, dict(headers))
    try:
        (result,) = _Verifier(_Keys(None, public), now).verify(
            message, max_age=None, expect_tag=LABEL, require_components=COVERED
        )
    except (InvalidSignature, ValueError) as error:
        cause = error.__cause__
        if isinstance(cause, Unauthenticated):
            raise cause from None
        raise Unauthenticated(
            f"The request's signature does not hold: {str(error) or 'it is not by the key of this site'}.",
            where="Signature",
            todo="Sign method, path, query and Content-Digest with the key of the site's certificate (RFC 9421).",
        ) from None
    return Verified(
        site=str(result.parameters["keyid"]),
        created=int(result.parameters["created"]),
        digest=result.covered_components['"content-digest"'],
    )
