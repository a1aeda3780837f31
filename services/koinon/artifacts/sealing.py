"""Sealing: `seal` makes a file that only its recipients can read; `open_file` and `open_bytes` check and read it.

A sealed file is the 8 bytes "koinon1\\n", the header's length (u32, little-endian), the header as canonical JSON,
then AES-256-GCM chunks: `chunk` bytes of plaintext and a tag of 16 bytes each. The header is signed, since age
recipients are public and anybody could seal another model to them. Body key = HKDF-SHA256(content key, hash
of the header without signature); nonce = 11-byte counter ‖ last-chunk flag; so reordering, truncation and a swapped
header fail. The content key is wrapped once per recipient with age (age-encryption.org/v1).
"""

import base64
import binascii
import hashlib
import io
import os
import secrets
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field

from koinon.artifacts import files, keyfiles
from koinon.artifacts.files import Buffer
from koinon.artifacts.keyfiles import Identity
from koinon.domain import canonical
from koinon.domain.errors import Invalid, Untrusted
from koinon.domain.ids import Hash, RunId
from koinon.domain.keys import Signed, SigningKey

MAGIC = b"koinon1\n"
CHUNK = 2**20
MAX_HEADER = 4 * 2**20
TAG = 16
KEY_BYTES = 32

Kind = Literal["init", "model", "optimiser", "result"]
Stream = io.BufferedIOBase


class Unknown(Enum):
    """Stands where a reader cannot know what to expect; None is a value (a first model has no parent)."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN


class Header(Signed):
    """What a sealed file says about itself: SHA-256 of the plaintexts of `parent` and itself, `length` and `chunk` in
    bytes, and `stanzas`: recipient ("age1…") → the content key wrapped for it, base64."""

    purpose = "artifact"
    version: Literal[1] = 1
    manifest: Hash
    run: RunId
    round: int = Field(ge=0)
    kind: Kind
    parent: Hash | None
    plaintext: Hash
    length: int = Field(ge=0)
    chunk: int = Field(ge=2**20, le=4 * 2**20)
    stanzas: dict[str, str] = Field(min_length=1)

    def chunks(self) -> int:
        """At least one: even an empty plaintext has a tag."""
        return max(1, -(-self.length // self.chunk))


@dataclass(frozen=True)
class Expected:
    """What a reader knows before it opens: from the manifest it granted, the layout, and the context of the round.

    `round` is the one whose commit made the artifact, `length` the plaintext's bytes.
    """

    manifest: str
    run: str
    round: int
    kind: Kind
    parent: str | Unknown | None
    plaintext: str | Unknown
    length: int | Unknown


@dataclass(frozen=True)
class Prepared:
    """A signed header and its content key. Stored (the key wrapped) before the write: a retry gives identical bytes."""

    header: Header
    content_key: bytes = field(repr=False)


class Sealed:
    """A sealed file at `path` of `size` bytes; `name` is their SHA-256, `signer` the key (hex) that signed `header`.
    Only `seal` makes one, and nothing else can be put into an artifact store."""

    path: Path
    header: Header
    name: str
    size: int
    signer: str

    def __init__(self) -> None:
        raise TypeError("Only sealing.seal makes a Sealed.")

    @classmethod
    def _of(cls, path: Path, header: Header, name: str, size: int, signer: str) -> Self:
        self = object.__new__(cls)
        self.path, self.header, self.name, self.size, self.signer = path, header, name, size, signer
        return self


def new_content_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def prepare(
    *,
    manifest: str,
    run: str,
    round: int,
    kind: Kind,
    parent: str | None,
    plaintext: str,
    length: int,
    recipients: Iterable[str],
    content_key: bytes,
    signer: SigningKey,
) -> Prepared:
    """The signed header for a plaintext of `length` bytes whose SHA-256 is `plaintext`. Raises Invalid.

    Wrapping is randomised: store `header.encode()` and `wrap_key(…)` before the first write, `restore` after a crash.
    """
    stanzas = {r: base64.b64encode(keyfiles.wrap(content_key, r)).decode() for r in sorted(set(recipients))}
    fields = {"manifest": manifest, "run": run, "round": round, "kind": kind, "parent": parent}
    fields |= {"plaintext": plaintext, "length": length, "chunk": CHUNK, "stanzas": stanzas}
    return Prepared(Header.of(fields, where="artifact").signed(signer), content_key)


def wrap_key(prepared: Prepared, recipient: str) -> bytes:
    """The content key encrypted to `recipient` (the hub's own), for the store."""
    return keyfiles.wrap(prepared.content_key, recipient)


def restore(header: bytes, wrapped: bytes, identity: Identity, *, signer: str) -> Prepared:
    """What `prepare` made, from the store. Raises Untrusted if `signer` (hex) did not sign the header."""
    parsed = Header.parse(header, where="artifact")
    parsed.check(signer)
    return Prepared(parsed, identity.unwrap(wrapped))


def seal(source: Path | Buffer | Sequence[Buffer], prepared: Prepared, path: Path, *, signer: str) -> Sealed:
    """`source` (a file, a buffer, or buffers in a row) in the file `path`, durable; same source and header, same bytes.

    Raises Untrusted if `signer` (public key, hex) did not sign the header or the source is not the plaintext that it
    names; `path` is then as it was.
    """
    header = prepared.header
    header.check(signer)
    text = header.encode()
    if len(text) > MAX_HEADER:
        raise Invalid(f"A header of {len(text)} bytes is above {MAX_HEADER}.", todo="Name fewer recipients.")
    cipher, plain, name = AESGCM(_body_key(header, prepared.content_key)), hashlib.sha256(), hashlib.sha256()
    with files.draft(path) as target, files.reading(source) as stream:

        def emit(data: Buffer) -> None:
            target.write(data)
            name.update(data)

        emit(MAGIC + struct.pack("<I", len(text)) + text)
        clear, secret = memoryview(bytearray(header.chunk)), memoryview(bytearray(header.chunk + TAG))
        for index in range(header.chunks()):
            size = _chunk_size(header, index)
            files.fill(stream, clear[:size])
            plain.update(clear[:size])
            cipher.encrypt_into(_nonce(header, index), clear[:size], None, secret[: size + TAG])
            emit(secret[: size + TAG])
        if not files.at_end(stream) or plain.hexdigest() != header.plaintext:
            raise Untrusted("The plaintext is not the one that the header names.", where="artifact")
        size = target.tell()
    return Sealed._of(path, header, name.hexdigest(), size, signer)


def verify(sealed: Sealed) -> None:
    """For writers. Raises TypeError for anything but a Sealed, Untrusted if header or size are not as they were signed.

    Whoever copies the bytes also checks that they hash to `name`.
    """
    if type(sealed) is not Sealed:
        raise TypeError(f"Only a Sealed can be stored, not a {type(sealed).__name__}.")
    with sealed.path.open("rb") as file:
        header = read_header(file, signer=sealed.signer)
        size = file.tell() + header.length + TAG * header.chunks()
        if header != sealed.header or os.fstat(file.fileno()).st_size != size or size != sealed.size:
            raise Untrusted("The sealed file is not the one that was made.", where=sealed.path.name)


def read_header(stream: Stream, *, signer: str) -> Header:
    """The header at the start of `stream`, which then stands at the body. Raises Invalid if this is no sealed file,
    Untrusted unless `signer` (hex) signed the header."""
    start = stream.read(len(MAGIC) + 4)
    if len(start) != len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise Invalid("This is not a sealed artifact.", where="artifact")
    (length,) = struct.unpack("<I", start[len(MAGIC) :])
    if length > MAX_HEADER:
        raise Invalid(f"A header of {length} bytes is above {MAX_HEADER}.", where="artifact")
    text = stream.read(length)
    if len(text) != length:
        raise Untrusted("It ends within its header.", where="artifact")
    header = Header.parse(text, where="artifact")
    header.check(signer)
    if header.encode() != text:
        raise Untrusted("Its header is not in canonical form.", where="artifact")
    return header


def open_file(source: Path | Stream, identity: Identity, target: Path, *, signer: str, expected: Expected) -> Header:
    """The plaintext of `source` in the file `target`, which appears only once everything verified.

    Raises Untrusted, or Invalid if this is no sealed file. The hub never does this: it keeps plaintext in memory.
    """
    with files.reading(source) as stream, files.draft(target) as out:
        header = read_header(stream, signer=signer)
        _compare(header, expected)
        for clear in _chunks(stream, header, identity):
            out.write(clear)
    return header


def open_bytes(source: Path | Buffer | Stream, identity: Identity, *, signer: str, expected: Expected) -> bytearray:
    """The plaintext of `source` in memory, once everything verified. Raises as `open_file`."""
    with files.reading(source) as stream:
        header = read_header(stream, signer=signer)
        _compare(header, expected)
        result = bytearray()  # grows with what verified: a header may name any length
        for clear in _chunks(stream, header, identity):
            result += clear
    return result


def _chunks(stream: Stream, header: Header, identity: Identity) -> Iterator[memoryview]:
    """The verified chunks, each in the same memory. The last step of the iteration checks the end and the whole."""
    cipher = AESGCM(_body_key(header, _content_key(header, identity)))
    plain = hashlib.sha256()
    secret, clear = memoryview(bytearray(header.chunk + TAG)), memoryview(bytearray(header.chunk))
    for index in range(header.chunks()):
        size = _chunk_size(header, index)
        files.fill(stream, secret[: size + TAG])
        try:
            cipher.decrypt_into(_nonce(header, index), secret[: size + TAG], None, clear[:size])
        except InvalidTag:
            raise Untrusted(f"Chunk {index} is damaged or not in its place.", where="artifact") from None
        plain.update(clear[:size])
        yield clear[:size]
    if not files.at_end(stream):
        raise Untrusted("It goes on after its last chunk.", where="artifact")
    if plain.hexdigest() != header.plaintext:
        raise Untrusted("It does not hold the plaintext that its header names.", where="artifact")


def _content_key(header: Header, identity: Identity) -> bytes:
    stanza = header.stanzas.get(identity.recipient)
    if stanza is None:
        raise Untrusted(f"The artifact is not sealed to {identity.recipient}.", todo="Use a recipient's key.")
    try:
        return identity.unwrap(base64.b64decode(stanza, validate=True))
    except binascii.Error:
        raise Untrusted("The wrapped key is not base64.", where="artifact.stanzas") from None


def _compare(header: Header, expected: Expected) -> None:
    for name in ("manifest", "run", "round", "kind", "parent", "plaintext", "length"):
        wanted, found = getattr(expected, name), getattr(header, name)
        if wanted is not UNKNOWN and wanted != found:
            raise Untrusted(f"It is {found}, not {wanted}.", where=f"artifact.{name}")


def _body_key(header: Header, content_key: bytes) -> bytes:
    if len(content_key) != KEY_BYTES:
        raise Untrusted("The content key has the wrong size.", where="artifact")
    info = b"koinon/artifact\0" + bytes.fromhex(canonical.digest(header.body()))
    return HKDF(hashes.SHA256(), KEY_BYTES, None, info).derive(content_key)


def _nonce(header: Header, index: int) -> bytes:
    return index.to_bytes(11, "big") + bytes([index == header.chunks() - 1])


def _chunk_size(header: Header, index: int) -> int:
    return min(header.chunk, header.length - index * header.chunk)
