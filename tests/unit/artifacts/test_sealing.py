"""A sealed artifact opens for its recipients as it was, and any change fails before a byte is handed over."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.artifacts import keyfiles, sealing
from koinon.artifacts.files import Buffer
from koinon.artifacts.sealing import UNKNOWN, Header, Sealed
from koinon.domain.errors import Invalid, Untrusted
from koinon.domain.keys import SigningKey
from tests.unit.artifacts import plaintexts
from tests.unit.artifacts.plaintexts import BERLIN, HUB, PARIS, PLAIN, Layout


class _Quiet(bytes):
    """Bytes that hypothesis does not print when it reports an example."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of one sealed file, of three chunks."""
    return _Quiet(plaintexts.sealed(tmp_path_factory.mktemp("whole")).path.read_bytes())


def refused(text: bytes, folder: Path, **changes: Any) -> None:
    """Neither way to open hands over a byte."""
    with pytest.raises((Untrusted, Invalid)):
        plaintexts.opens(text, **changes)
    with pytest.raises((Untrusted, Invalid)):
        sealing.open_file(
            io.BytesIO(text),
            BERLIN,
            folder / "opened",
            signer=HUB.public,
            expected=plaintexts.expected(**changes),
        )
    assert not list(folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_every_recipient_opens_what_was_sealed(size: int, tmp_path: Path) -> None:
    plain = (PLAIN * 2)[:size]
    artifact = plaintexts.sealed(tmp_path, plain)
    text = artifact.path.read_bytes()
    assert artifact.name == hashlib.sha256(text).hexdigest()
    assert artifact.size == len(text)
    assert size < 32 or plain[:32] not in text
    for identity in (BERLIN, PARIS):
        opened = sealing.open_bytes(artifact.path, identity, signer=HUB.public, expected=plaintexts.expected(plain))
        assert opened == plain
        header = sealing.open_file(
            artifact.path, identity, tmp_path / "opened", signer=HUB.public, expected=plaintexts.expected(plain)
        )
        assert header == artifact.header
        assert (tmp_path / "opened").read_bytes() == plain


def test_a_source_may_be_a_file_or_buffers_in_a_row(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "plain").write_bytes(PLAIN)
    ready = plaintexts.prepared()
    first = sealing.seal(PLAIN, ready, tmp_path / "1", signer=HUB.public)
    row: list[Buffer] = [PLAIN[:10], b"", bytearray(PLAIN[10 : 2**20]), memoryview(PLAIN)[2**20 :]]
    for source in (tmp_path / "plain", row):
        assert sealing.seal(source, ready, tmp_path / "2", signer=HUB.public).name == first.name


def test_a_retry_from_the_stored_header_and_key_writes_identical_bytes(tmp_path: Path) -> None:
    hub = keyfiles.new_identity()
    ready = plaintexts.prepared()
    stored = ready.header.encode(), sealing.wrap_key(ready, hub.recipient)
    first = sealing.seal(PLAIN, ready, tmp_path / "1", signer=HUB.public)
    restored = sealing.restore(*stored, hub, signer=HUB.public)
    second = sealing.seal(PLAIN, restored, tmp_path / "2", signer=HUB.public)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert first.name == second.name
    with pytest.raises(Untrusted):
        sealing.restore(*stored, BERLIN, signer=HUB.public)
    with pytest.raises(Untrusted):
        sealing.restore(*stored, hub, signer=SigningKey(b"x" * 32).public)


def test_no_key_shows_in_the_repr_of_what_is_prepared() -> None:
    ready = plaintexts.prepared(key=b"\xabSECRET\xcd" * 4)
    assert "SECRET" not in repr(ready)


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), header=st.booleans())
@settings(max_examples=120, deadline=None)
def test_a_flipped_bit_is_refused(
    where: float, bit: int, header: bool, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parts = Layout.of(whole)
    end = len(parts.head) + len(parts.header)
    text = bytearray(whole)
    text[int(where * end) if header else end + int(where * (len(whole) - end))] ^= 1 << bit
    refused(bytes(text), tmp_path_factory.mktemp("flip"))


@given(where=st.floats(0, 1, exclude_max=True), header=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_truncated_artifact_is_refused(
    where: float, header: bool, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parts = Layout.of(whole)
    size = len(parts.head) + len(parts.header) if header else len(whole)
    refused(whole[: int(where * size)], tmp_path_factory.mktemp("cut"))


@given(chunks=st.lists(st.integers(0, 2), max_size=4).filter(lambda order: order != [0, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_chunks_in_another_order_number_or_repeated_are_refused(
    chunks: list[int], whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parts = Layout.of(whole)
    text = replace(parts, chunks=tuple(parts.chunks[i] for i in chunks)).joined()
    refused(text, tmp_path_factory.mktemp("order"))


@given(more=st.binary(min_size=1, max_size=40))
@settings(max_examples=20, deadline=None)
def test_bytes_after_the_end_are_refused(more: bytes, whole: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    refused(whole + more, tmp_path_factory.mktemp("more"))


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 4},
        {"parent": "c" * 64},
        {"parent": None},
        {"kind": "result"},
        {"run": "run002"},
        {"manifest": "c" * 64},
    ],
)
def test_a_header_of_another_artifact_with_the_same_content_key_is_refused(
    changes: dict[str, Any], whole: bytes, tmp_path: Path
) -> None:
    """Even where everything the header says is what the reader waits for: the body key is bound to its own header."""
    (tmp_path / "other").mkdir()
    (tmp_path / "here").mkdir()
    other = Layout.of(plaintexts.sealed(tmp_path / "other", **changes).path.read_bytes())
    text = replace(other, chunks=Layout.of(whole).chunks).joined()
    refused(text, tmp_path / "here", **changes)


def test_a_header_with_another_content_key_is_refused(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "here").mkdir()
    other = Layout.of(plaintexts.sealed(tmp_path / "other", key=b"x" * 32).path.read_bytes())
    refused(replace(other, chunks=Layout.of(whole).chunks).joined(), tmp_path / "here")


def test_a_header_in_another_form_is_refused_even_where_its_signature_holds(whole: bytes, tmp_path: Path) -> None:
    parts = Layout.of(whole)
    spaced = parts.header[:1] + b" " + parts.header[1:]
    head = sealing.MAGIC + len(spaced).to_bytes(4, "little")
    refused(replace(parts, head=head, header=spaced).joined(), tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("manifest", "c" * 64),
        ("run", "run002"),
        ("round", 2),
        ("round", 4),
        ("kind", "optimiser"),
        ("parent", "c" * 64),
        ("parent", None),
        ("plaintext", "c" * 64),
        ("length", len(PLAIN) - 1),
    ],
)
def test_an_artifact_of_another_place_or_time_is_refused(
    field: str, value: object, whole: bytes, tmp_path: Path
) -> None:
    refused(whole, tmp_path, **{field: value})


def test_what_a_reader_cannot_know_is_taken_from_the_signed_header(whole: bytes) -> None:
    assert plaintexts.opens(whole, parent=UNKNOWN, plaintext=UNKNOWN, length=UNKNOWN) == PLAIN


def test_a_signature_has_one_form(whole: bytes, tmp_path: Path) -> None:
    """A capital is a flipped bit that hex readers overlook."""
    parts = Layout.of(whole)
    signature = Header.parse(parts.header).signature
    for form in (signature.upper(), signature[:2] + " " + signature[2:]):
        text = parts.header.replace(signature.encode(), form.encode())
        head = sealing.MAGIC + len(text).to_bytes(4, "little")
        refused(replace(parts, head=head, header=text).joined(), tmp_path)


def test_anybody_elses_signature_is_refused(tmp_path: Path) -> None:
    stranger = SigningKey(b"x" * 32)
    path = tmp_path / "strange"
    sealing.seal(PLAIN, plaintexts.prepared(signer=stranger), path, signer=stranger.public)
    text = path.read_bytes()
    path.unlink()
    refused(text, tmp_path)
    with pytest.raises(Untrusted):
        sealing.seal(PLAIN, plaintexts.prepared(signer=stranger), path, signer=HUB.public)
    assert not list(tmp_path.iterdir())


def test_a_header_that_names_an_absurd_length_costs_nothing(whole: bytes, tmp_path: Path) -> None:
    parts, ready = Layout.of(whole), plaintexts.prepared()
    text = ready.header.model_copy(update={"length": 2**52}).signed(HUB).encode()
    head = sealing.MAGIC + len(text).to_bytes(4, "little")
    refused(replace(parts, head=head, header=text).joined(), tmp_path, length=UNKNOWN)


def test_who_is_no_recipient_cannot_open(whole: bytes) -> None:
    with pytest.raises(Untrusted, match="not sealed to age1"):
        plaintexts.opens(whole, identity=keyfiles.new_identity())


def test_another_recipients_stanza_under_the_readers_name_does_not_open(tmp_path: Path) -> None:
    ready = plaintexts.prepared()
    stanzas = {BERLIN.recipient: ready.header.stanzas[PARIS.recipient]}
    header = ready.header.model_copy(update={"stanzas": stanzas}).signed(HUB)
    path = tmp_path / "crossed"
    sealing.seal(PLAIN, replace(ready, header=header), path, signer=HUB.public)
    with pytest.raises(Untrusted, match="not sealed to"):
        plaintexts.opens(path.read_bytes())


@pytest.mark.parametrize("change", [lambda p: p[:-1], lambda p: p + b"x", lambda p: b"x" + p[1:]])
def test_only_the_plaintext_that_the_header_names_is_sealed(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    with pytest.raises(Untrusted):
        sealing.seal(change(PLAIN), plaintexts.prepared(), tmp_path / "sealed", signer=HUB.public)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    artifact = plaintexts.sealed(tmp_path)
    before = artifact.path.read_bytes()
    with pytest.raises(Untrusted):
        sealing.seal(PLAIN[1:], plaintexts.prepared(), artifact.path, signer=HUB.public)
    assert artifact.path.read_bytes() == before


def test_a_header_must_make_sense() -> None:
    with pytest.raises(Invalid, match="not an age recipient"):
        sealing.prepare(
            **plaintexts.FIELDS,
            plaintext="a" * 64,
            length=1,
            recipients=["age1nobody"],
            content_key=b"k" * 32,
            signer=HUB,
        )
    with pytest.raises(Invalid, match="chunk"):
        Header.of({**plaintexts.prepared().header.model_dump(), "chunk": 1_000})
    with pytest.raises(Untrusted, match="content key"):
        sealing.seal(PLAIN, plaintexts.prepared(key=b"short"), Path("never"), signer=HUB.public)


def test_nobody_else_makes_a_sealed_and_writers_verify_it(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        Sealed()
    with pytest.raises(TypeError, match="not a bytes"):
        sealing.verify(PLAIN)  # type: ignore[arg-type]
    artifact = plaintexts.sealed(tmp_path)
    sealing.verify(artifact)
    text = artifact.path.read_bytes()
    other = plaintexts.sealed(tmp_path, round=4).path.read_bytes()
    for changed in (text + b"x", text[:-1], other):
        artifact.path.write_bytes(changed)
        with pytest.raises(Untrusted):
            sealing.verify(artifact)
    artifact.path.write_bytes(PLAIN)
    with pytest.raises(Invalid):
        sealing.verify(artifact)
