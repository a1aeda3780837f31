"""Secret keys: what their files let pass, and that nothing shows them."""

import stat
from pathlib import Path

import pytest

from koinon.artifacts import keyfiles
from koinon.domain.errors import Conflict, Invalid, NotFound, Untrusted
from koinon.domain.keys import SigningKey


def test_an_identity_opens_what_is_wrapped_for_it_and_nothing_else() -> None:
    mine, other = keyfiles.new_identity(), keyfiles.new_identity()
    wrapped = keyfiles.wrap(b"content key", mine.recipient)
    assert mine.unwrap(wrapped) == b"content key"
    with pytest.raises(Untrusted, match="not sealed to"):
        other.unwrap(wrapped)
    with pytest.raises(Untrusted):
        mine.unwrap(wrapped[:-1])
    with pytest.raises(Invalid, match="not an age recipient"):
        keyfiles.wrap(b"x", mine.secret())


def test_keys_come_back_from_their_files(tmp_path: Path) -> None:
    identity, key = keyfiles.new_identity(), SigningKey(b"s" * 32)
    keyfiles.write_identity(tmp_path / "keys" / "recipient.key", identity)
    keyfiles.write_signing_key(tmp_path / "keys" / "signing.key", key)
    assert keyfiles.read_identity(tmp_path / "keys" / "recipient.key").recipient == identity.recipient
    assert keyfiles.read_signing_key(tmp_path / "keys" / "signing.key").public == key.public
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert len(list((tmp_path / "keys").iterdir())) == 2


def test_a_key_is_never_written_over_unless_it_is_renewed(tmp_path: Path) -> None:
    path, first, second = tmp_path / "key", SigningKey(b"1" * 32), SigningKey(b"2" * 32)
    keyfiles.write_signing_key(path, first)
    with pytest.raises(Conflict, match="key already"):
        keyfiles.write_signing_key(path, second)
    assert keyfiles.read_signing_key(path).public == first.public
    keyfiles.write_signing_key(path, second, replace=True)
    assert keyfiles.read_signing_key(path).public == second.public
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660])
def test_a_key_that_others_have_access_to_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    keyfiles.write_identity(path, keyfiles.new_identity())
    path.chmod(mode)
    with pytest.raises(Untrusted, match="chmod 600"):
        keyfiles.read_identity(path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "\x00", "AGE-SECRET-KEY-1SECRETPART"])
def test_a_damaged_key_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    keyfiles.write_secret(path, text)
    for read in (keyfiles.read_identity, keyfiles.read_signing_key):
        with pytest.raises(Invalid) as caught:
            read(path)
        assert "SECRETPART" not in str(caught.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="not a key"):
        keyfiles.read_secret(path)


def test_an_absent_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        keyfiles.read_identity(tmp_path / "nowhere")


def test_no_secret_shows_in_a_repr_or_an_error() -> None:
    identity = keyfiles.new_identity()
    assert identity.secret() not in repr(identity)
    assert identity.recipient in repr(identity)
    with pytest.raises(Invalid) as caught:
        keyfiles.Identity(identity.secret()[:-1])
    assert identity.secret()[16:40] not in str(caught.value)
    assert caught.value.__cause__ is None
