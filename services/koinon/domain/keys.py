"""Signing keys, and certificates by which a hospital's root vouches for its agent's keys.

The root key stays offline with the hospital's IT; the agent holds the operational keys, which rotate
by a new certificate of a higher epoch, without a new manifest (DESIGN.md, One root of trust).
"""

import hashlib
from typing import Any, ClassVar, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from koinon.domain import canonical
from koinon.domain.errors import Invalid, Untrusted


class Wire(BaseModel):
    """A document that crosses the network or is hashed: immutable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, text: bytes | str, *, where: str = "") -> Self:
        """Raises Invalid that names the field."""
        return cls.of(canonical.decode(text), where=where)

    @classmethod
    def of(cls, value: Any, *, where: str = "") -> Self:
        """`value` (as JSON gives it) checked. Raises Invalid that names the field, never its value."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"{first['msg']}.", where=".".join(p for p in (where, place) if p)) from None

    def digest(self) -> str:
        return canonical.digest(self.model_dump())

    def encode(self) -> bytes:
        return canonical.encode(self.model_dump())


def _message(purpose: str, body: Any) -> bytes:
    return b"koinon/" + purpose.encode() + b"\0" + canonical.encode(body)


class SigningKey:
    """An Ed25519 private key. Its secret shows in no repr and no exception."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise Invalid(f"A signing key has 32 bytes, not {len(secret)}.")
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw().hex()

    def __repr__(self) -> str:
        return f"SigningKey({fingerprint(self.public)})"

    def secret(self) -> bytes:
        """The 32 secret bytes, to be stored in a file of mode 0600 and nowhere else."""
        return self._key.private_bytes_raw()

    def sign(self, purpose: str, body: Any) -> str:
        return self._key.sign(_message(purpose, body)).hex()


def verify(public: str, purpose: str, body: Any, signature: str) -> None:
    """Raises Untrusted unless `signature` (hex) is `public`'s (hex) over purpose and canonical body."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        raw = bytes.fromhex(signature)
        if raw.hex() != signature:  # fromhex reads capitals and spaces too: one document, one form
            raise ValueError
        key.verify(raw, _message(purpose, body))
    except (InvalidSignature, ValueError):
        raise Untrusted(f"The signature of this {purpose} is not by key {fingerprint(public)}.") from None


def fingerprint(public: str) -> str:
    """Eight groups of four hex digits to read out on the telephone (128 bits of SHA-256)."""
    text = hashlib.sha256(public.encode()).hexdigest()[:32]
    return "-".join(text[i : i + 4] for i in range(0, 32, 4))


class Signed(Wire):
    """A document with one signature over all its other fields."""

    purpose: ClassVar[str]
    signature: str = ""

    def body(self) -> dict[str, Any]:
        return self.model_dump(exclude={"signature"})

    def signed(self, key: SigningKey) -> Self:
        return self.model_copy(update={"signature": key.sign(self.purpose, self.body())})

    def check(self, public: str) -> None:
        """Raises Untrusted unless signed by `public` (hex)."""
        verify(public, self.purpose, self.body(), self.signature)


class Certificate(Signed):
    """A root's word for its agent's operational keys. Times in seconds since 1970, UTC."""

    purpose = "certificate"
    site: str
    epoch: int
    signing: str
    recipient: str
    not_before: int
    not_after: int

    def check_for(self, root: str, site: str, now: float) -> None:
        """Raises Untrusted unless `root` certified `site` for the time `now`."""
        self.check(root)
        if self.site != site:
            raise Untrusted(f"The certificate is {self.site}'s, not {site}'s.")
        if not self.not_before <= now <= self.not_after:
            raise Untrusted(
                f"The certificate of {site} is not valid now.",
                todo="Check the site's clock, or renew it: koinon site init --renew",
            )
