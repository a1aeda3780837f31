"""Key agreement, key derivation and commitments. Every key is bound to what it is for and to whom."""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from koinon.domain import canonical
from koinon.domain.errors import Untrusted

KEY_BYTES = 32
_PROBE = X25519PrivateKey.from_private_bytes(bytes([1] * KEY_BYTES))
_ONCE = bytes(12)  # a nonce for keys that seal exactly one message


def derive(secret: bytes, *purpose: str) -> bytes:
    """32 bytes for `purpose` by HKDF-SHA256 (RFC 5869). Different purposes give independent keys."""
    info = b"koinon/" + canonical.encode(list(purpose))
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def public_of(secret: bytes) -> str:
    """The X25519 public key (hex) of a 32-byte secret."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw().hex()


def agree(secret: bytes, peer: str, *purpose: str) -> bytes:
    """The key for `purpose` that only the two owners can derive (X25519, RFC 7748)."""
    return derive(_exchange(X25519PrivateKey.from_private_bytes(secret), peer), *purpose)


def require_point(public: str) -> None:
    """Raises Untrusted for a key of low order: anybody could derive what is agreed with it."""
    _exchange(_PROBE, public)


def _exchange(secret: X25519PrivateKey, peer: str) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(peer)))
    except ValueError:
        raise Untrusted(f"{peer[:8]}… is not a usable X25519 key.") from None


def commitment(seed: bytes, opening: str, site: str) -> str:
    """SHA-256 (hex) that fixes a self-mask seed before the roster is known. The seed is uniform, so it stays hidden."""
    return hashlib.sha256(b"koinon/seed\0" + canonical.encode([opening, site]) + seed).hexdigest()


def seal(key: bytes, plain: bytes, *associated: str) -> bytes:
    """AES-256-GCM. NB: the nonce is fixed, so a key seals one message only; sealing again gives the same bytes."""
    return AESGCM(key).encrypt(_ONCE, plain, canonical.encode(list(associated)))


def unseal(key: bytes, sealed: bytes, *associated: str) -> bytes:
    """Raises Untrusted unless `sealed` was made by `seal` with the same key and associated data."""
    try:
        return AESGCM(key).decrypt(_ONCE, sealed, canonical.encode(list(associated)))
    except (InvalidTag, ValueError):
        raise Untrusted("A sealed share cannot be opened.") from None
