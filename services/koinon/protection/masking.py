"""Masks: AES-256 keystreams added to the words of the ring, block by block, in place.

The keystream of block i is AES-256-GCM of zeros with nonce i (that is AES-CTR from nonce ‖ 00000002); OpenSSL
vectorises it. A key makes one keystream, for the one vector of its attempt, and is used for nothing else.
"""

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from koinon.protection import keying

BLOCK = 2**16  # words of one keystream block: 256 KiB, so that block and keystream stay in the cache
_TAG = 16
_ZEROS = bytes(4 * BLOCK)

Words = NDArray[np.uint32]
Mask = tuple[bytes, int]  # a 32-byte key, and +1 or -1


def pair(secret: bytes, peer_key: str, context: str, site: str, peer: str) -> Mask:
    """What `site` adds for `peer`. The two cancel: the first by name adds the keystream, the other subtracts it."""
    key = keying.agree(secret, peer_key, "mask", context, *sorted((site, peer)))
    return key, 1 if site < peer else -1


def own(seed: bytes, context: str) -> Mask:
    """What a site adds for itself, so that its update stays hidden even if its pairwise masks become known."""
    return keying.derive(seed, "self", context), 1


def apply(words: Words, masks: Sequence[Mask]) -> None:
    """Adds `masks` to `words` (uint32[D], any memory map) in place, modulo 2^32."""
    _add(words, masks, 1)


def remove(words: Words, masks: Sequence[Mask]) -> None:
    """Undoes `apply`."""
    _add(words, masks, -1)


def _add(words: Words, masks: Sequence[Mask], direction: int) -> None:
    if words.dtype != np.uint32 or words.ndim != 1:
        raise ValueError("masks go over a flat vector of uint32")
    words = np.asarray(words)  # a memory map's own slices are slow
    ciphers = [(AESGCM(key), np.add if sign == direction else np.subtract) for key, sign in masks]
    scratch = bytearray(4 * BLOCK + _TAG)
    keystream = np.frombuffer(scratch, np.uint32, BLOCK)
    for index, start in enumerate(range(0, words.size, BLOCK)):
        nonce, block = index.to_bytes(12), words[start : start + BLOCK]
        for cipher, combine in ciphers:
            cipher.encrypt_into(nonce, _ZEROS, None, scratch)
            combine(block, keystream[: block.size], out=block)
