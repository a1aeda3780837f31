"""Masks: what they are, that they cancel, and that no (key, nonce) pair is used twice."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from koinon.domain.errors import Untrusted
from koinon.protection import keying, masking

SIZES = [1, 5, masking.BLOCK - 1, masking.BLOCK, masking.BLOCK + 1, 3 * masking.BLOCK + 7]
CONTEXT, OTHER = "aa" * 32, "ab" * 32


def _keystream(key: bytes, size: int) -> np.ndarray:
    words = np.zeros(size, np.uint32)
    masking.apply(words, [(key, 1)])
    return words


@pytest.mark.parametrize("size", SIZES)
def test_block_i_is_aes_ctr_from_nonce_i(size: int) -> None:
    """An independent formulation: AES-256-CTR whose counter starts at nonce ‖ 00000002."""
    key, expected = bytes(range(32)), b""
    for index in range(-(-size // masking.BLOCK)):
        counter = index.to_bytes(12) + (2).to_bytes(4)
        cipher = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()
        expected += cipher.update(bytes(4 * masking.BLOCK))
    np.testing.assert_array_equal(_keystream(key, size), np.frombuffer(expected, np.uint32)[:size])


@pytest.mark.parametrize("size", SIZES)
def test_remove_undoes_apply(size: int) -> None:
    words = np.random.default_rng(1).integers(0, 2**32, size, np.uint32)
    masked, masks = words.copy(), [(bytes([i]) * 32, 1 if i % 2 else -1) for i in range(5)]
    masking.apply(masked, masks)
    assert np.mean(masked == words) <= 0.5 if size > 1 else masked[0] != words[0]
    masking.remove(masked, masks)
    np.testing.assert_array_equal(masked, words)


def test_pairs_cancel_and_only_in_one_context() -> None:
    a, b = b"a" * 32, b"b" * 32

    def leftover(context_of_b: str) -> np.ndarray:
        words = np.zeros(masking.BLOCK + 3, np.uint32)
        masking.apply(words, [masking.pair(a, keying.public_of(b), CONTEXT, "north", "south")])
        masking.apply(words, [masking.pair(b, keying.public_of(a), context_of_b, "south", "north")])
        return words

    assert not leftover(CONTEXT).any()
    assert np.count_nonzero(leftover(OTHER)) > masking.BLOCK / 2


def test_no_key_and_nonce_repeat() -> None:
    """All keys of a round: per pair one, shared by its two ends for one keystream that cancels; all others differ."""
    sites = {f"s{i}": (keying.derive(b"m", f"s{i}"), keying.derive(b"s", f"s{i}")) for i in range(6)}
    keys: list[bytes] = []
    for context in (CONTEXT, OTHER):
        keys += [masking.own(seed, context)[0] for _, seed in sites.values()]
        for a, b in combinations(sites, 2):
            forth, forth_sign = masking.pair(sites[a][0], keying.public_of(sites[b][0]), context, a, b)
            back, back_sign = masking.pair(sites[b][0], keying.public_of(sites[a][0]), context, b, a)
            assert (forth, forth_sign) == (back, -back_sign)
            keys.append(forth)
    assert len(set(keys)) == len(keys)


def test_no_block_of_a_keystream_repeats() -> None:
    blocks = _keystream(b"k" * 32, 6 * masking.BLOCK).reshape(6, -1)
    assert all(np.mean(one == other) < 0.01 for one, other in combinations(blocks, 2))
    assert len(np.unique(blocks.reshape(-1, 4), axis=0)) == blocks.size // 4


def test_a_memory_map_is_masked_in_place(tmp_path: Path) -> None:
    size = 2 * masking.BLOCK + 9
    mapped = np.memmap(tmp_path / "words", np.uint32, "w+", shape=(size,))
    masking.apply(mapped, [(b"k" * 32, -1)])
    mapped.flush()
    np.testing.assert_array_equal(np.fromfile(tmp_path / "words", np.uint32), -_keystream(b"k" * 32, size))


def test_only_flat_words_are_masked() -> None:
    wrongs: list[Any] = [np.zeros(4, np.float32), np.zeros((2, 2), np.uint32), np.zeros(4, np.int64)]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="flat vector"):
            masking.apply(wrong, [])


@pytest.mark.parametrize("point", ["00" * 32, "01" + "00" * 31, "ff" * 32])
def test_keys_of_low_order_are_refused(point: str) -> None:
    if point.startswith("ff"):  # a point like any other
        keying.require_point(point)
        return
    with pytest.raises(Untrusted):
        keying.require_point(point)
    with pytest.raises(Untrusted):
        masking.pair(b"a" * 32, point, CONTEXT, "north", "south")


def test_sealing_binds_key_and_associated_data() -> None:
    sealed = keying.seal(b"k" * 32, b"share", CONTEXT, "north", "south")
    assert keying.unseal(b"k" * 32, sealed, CONTEXT, "north", "south") == b"share"
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    for key, text, data in (
        (b"l" * 32, sealed, (CONTEXT, "north", "south")),
        (b"k" * 32, flipped, (CONTEXT, "north", "south")),
        (b"k" * 32, sealed[:-1], (CONTEXT, "north", "south")),
        (b"k" * 32, sealed, (OTHER, "north", "south")),
        (b"k" * 32, sealed, (CONTEXT, "south", "north")),
        (b"k" * 32, b"", (CONTEXT, "north", "south")),
    ):
        with pytest.raises(Untrusted):
            keying.unseal(key, text, *data)


def test_derived_keys_depend_on_every_word_of_their_purpose() -> None:
    purposes = [("a",), ("a", "b"), ("ab",), ("b", "a"), ("a", ""), ('a","b',)]
    assert len({keying.derive(b"s" * 32, *purpose) for purpose in purposes}) == len(purposes)
