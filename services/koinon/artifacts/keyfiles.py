"""Secret keys and their files: mode 0600, written whole or not at all, shown in no repr and no exception."""

import os
import ssl
import stat
from pathlib import Path

import pyrage
from pyrage import x25519

from koinon.artifacts import files
from koinon.domain.errors import Conflict, Invalid, NotFound, Untrusted
from koinon.domain.keys import SigningKey


class Identity:
    """An age X25519 identity: what is sealed to its `recipient` ("age1…"), it can open."""

    def __init__(self, text: str) -> None:
        """`text` is "AGE-SECRET-KEY-1…". Raises Invalid, without showing it, if it is not."""
        try:
            self._identity = x25519.Identity.from_str(text.strip())
        except pyrage.IdentityError:
            raise Invalid("This is not an age identity.", todo="It starts with AGE-SECRET-KEY-1.") from None
        self.recipient = str(self._identity.to_public())

    def __repr__(self) -> str:
        return f"Identity({self.recipient})"

    def secret(self) -> str:
        """The secret text, to be stored in a file of mode 0600 and nowhere else."""
        return str(self._identity)

    def unwrap(self, wrapped: bytes) -> bytes:
        """What `wrap` encrypted to this identity. Raises Untrusted for another recipient's or damaged bytes."""
        try:
            return bytes(pyrage.decrypt(wrapped, [self._identity]))
        except pyrage.DecryptError:
            raise Untrusted(f"This is not sealed to {self.recipient}, or it is damaged.") from None


def new_identity() -> Identity:
    return Identity(str(x25519.Identity.generate()))


def wrap(secret: bytes, recipient: str) -> bytes:
    """`secret` as an age file for `recipient` ("age1…"), about 300 bytes longer. Raises Invalid for a bad recipient."""
    try:
        parsed = x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError:
        raise Invalid(f'"{recipient}" is not an age recipient.', todo='It starts with "age1".') from None
    return bytes(pyrage.encrypt(secret, [parsed]))


def write_secret(path: Path, text: str, *, replace: bool = False) -> None:
    """`text` into `path`, mode 0600, durable. Raises Conflict if it exists and `replace` is not set."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with files.draft(path, replace=replace) as file:
            file.write(text.encode())
    except FileExistsError:
        raise Conflict("There is a key already.", where=str(path), todo="Move it away first.") from None


def read_secret(path: Path) -> str:
    """Raises NotFound, Untrusted if others than the owner may read or write the file, Invalid if it is no text.

    The group may read a file of somebody else's: Kubernetes mounts a Secret as root's, with the pod's group.
    """
    try:
        with path.open("rb") as file:
            if excess(os.fstat(file.fileno())):
                raise Untrusted("Others have access to this key.", where=str(path), todo=f"chmod 600 {path}")
            return file.read().decode()
    except FileNotFoundError:
        raise NotFound("There is no key.", where=str(path)) from None
    except UnicodeDecodeError:
        raise Invalid("This is not a key.", where=str(path)) from None


def excess(status: os.stat_result) -> int:
    """The rights on a secret's file that nobody should have; 0 if it is private."""
    shared = 0 if status.st_uid == os.geteuid() else stat.S_IRGRP
    return status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~shared


def trusting(authority: Path) -> ssl.SSLContext:
    """For TLS clients: trusts the authorities in a PEM file, and no others. Raises NotFound, Invalid."""
    try:
        return ssl.create_default_context(cafile=authority)
    except FileNotFoundError:
        raise NotFound("There is no certificate authority.", where=str(authority)) from None
    except ssl.SSLError:
        raise Invalid("This is no certificate authority.", where=str(authority), todo="It must be PEM.") from None


def write_identity(path: Path, identity: Identity, *, replace: bool = False) -> None:
    """An identity file as `age-keygen` writes it."""
    write_secret(path, f"# public key: {identity.recipient}\n{identity.secret()}\n", replace=replace)


def read_identity(path: Path) -> Identity:
    """Raises as `read_secret`, and Invalid unless the file holds one identity."""
    lines = [line for line in read_secret(path).splitlines() if line and not line.startswith("#")]
    if len(lines) != 1:
        raise Invalid(f"An identity file has one key, not {len(lines)}.", where=str(path))
    return Identity(lines[0])


def write_signing_key(path: Path, key: SigningKey, *, replace: bool = False) -> None:
    """The Ed25519 secret as hex."""
    write_secret(path, key.secret().hex() + "\n", replace=replace)


def read_signing_key(path: Path) -> SigningKey:
    """Raises as `read_secret`, and Invalid unless the file holds 32 bytes in hex."""
    try:
        secret = bytes.fromhex(read_secret(path).strip())
    except ValueError:
        raise Invalid("This is not a signing key.", where=str(path)) from None
    return SigningKey(secret)
