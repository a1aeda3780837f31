"""A plaintext of three chunks, sealed; what the tests of this folder start from."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from koinon.artifacts import keyfiles, sealing
from koinon.artifacts.keyfiles import Identity
from koinon.artifacts.sealing import Expected, Prepared, Sealed
from koinon.domain.keys import SigningKey

HUB = SigningKey(b"h" * 32)
BERLIN = keyfiles.new_identity()
PARIS = keyfiles.new_identity()
PLAIN = b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range((2 * 2**20 + 70_000) // 32))
FIELDS: dict[str, Any] = {
    "manifest": "a" * 64,
    "run": "run001",
    "round": 3,
    "kind": "model",
    "parent": "b" * 64,
}


def prepared(plain: bytes = PLAIN, *, key: bytes = b"k" * 32, signer: SigningKey = HUB, **changes: Any) -> Prepared:
    """`changes` override FIELDS."""
    return sealing.prepare(
        **{**FIELDS, **changes},
        plaintext=hashlib.sha256(plain).hexdigest(),
        length=len(plain),
        recipients=[BERLIN.recipient, PARIS.recipient],
        content_key=key,
        signer=signer,
    )


def expected(plain: bytes = PLAIN, **changes: Any) -> Expected:
    whole = Expected(**FIELDS, plaintext=hashlib.sha256(plain).hexdigest(), length=len(plain))
    return replace(whole, **changes)


def sealed(folder: Path, plain: bytes = PLAIN, **changes: Any) -> Sealed:
    return sealing.seal(plain, prepared(plain, **changes), folder / "sealed", signer=HUB.public)


@dataclass(frozen=True)
class Layout:
    """A sealed file taken apart: what stands before the header, the header, and the chunks with their tags."""

    head: bytes
    header: bytes
    chunks: tuple[bytes, ...]

    @classmethod
    def of(cls, text: bytes) -> "Layout":
        start = len(sealing.MAGIC) + 4
        body = start + int.from_bytes(text[start - 4 : start], "little")
        step = sealing.CHUNK + sealing.TAG
        chunks = tuple(text[at : at + step] for at in range(body, len(text), step))
        return cls(text[:start], text[start:body], chunks)

    def joined(self) -> bytes:
        return self.head + self.header + b"".join(self.chunks)


def opens(text: bytes, identity: Identity = BERLIN, **changes: Any) -> bytes:
    return bytes(sealing.open_bytes(text, identity, signer=HUB.public, expected=expected(**changes)))
