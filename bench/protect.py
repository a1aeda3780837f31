"""Masking, sealing and folding against what the machine can do at all, measured side by side on one thread."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import blake3
import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.measure import Ratio, side_by_side
from koinon.aggregation.fold import Accumulator
from koinon.aggregation.spool import Spool, Upload
from koinon.artifacts import keyfiles, sealing
from koinon.domain.keys import SigningKey
from koinon.domain.wire import PART_BYTES
from koinon.protection import masking

WORDS = 2**24  # 64 MiB: a model of 17 million parameters, beyond the caches
BYTES = 4 * WORDS
SITES = 10


def folding(folder: Path) -> Iterator[Ratio]:
    spool, sums = Spool(folder), Accumulator(folder / "sums", WORDS)
    vector = np.random.default_rng(1).integers(0, 2**32, WORDS, dtype=np.uint32)
    root, view = blake3.blake3(vector.data.cast("B")).hexdigest(), vector.data.cast("B")
    uploads = [Upload("bench0", 1, 1, f"site-{i}", BYTES) for i in range(SITES)]
    for upload in uploads:
        for index in range(upload.count()):
            with spool.part(upload, index) as part:
                part.write(view[index * PART_BYTES :][: upload.part_size(index)])
    paths = [spool.verify(upload, root) for upload in uploads]
    total = np.zeros(WORDS, np.uint32)

    def fold(times: int) -> None:
        """A batch, made durable; earlier sums are obsolete, as they are in a run."""
        sums.fold(None, paths * times)
        sums.keep(None)

    add, once, twice, verify = side_by_side(
        lambda: np.add(total, vector, out=total),
        lambda: fold(1),
        lambda: fold(2),
        lambda: spool.verify(uploads[0], root),
    )
    ceiling, each = BYTES / add, (twice - once) / SITES
    yield Ratio("fold from the spool, an upload / in-place uint32 add", BYTES / each, ceiling, 0.60)
    yield Ratio("check its BLAKE3 root and fold it / in-place add", BYTES / (each + verify), ceiling, 0.25)
    yield Ratio(f"a batch of {SITES}, its sum hashed and durable / in-place add", SITES * BYTES / once, ceiling)


def masks() -> Iterator[Ratio]:
    words, key = np.zeros(WORDS, np.uint32), bytes(32)
    zeros, scratch, cipher = bytes(2**18), bytearray(2**18 + 16), AESGCM(key)

    def keystream() -> None:
        for index in range(BYTES // len(zeros)):
            cipher.encrypt_into(index.to_bytes(12), zeros, None, scratch)

    def mask(neighbours: int) -> None:
        keys = [(hashlib.sha256(bytes([i])).digest(), 1 if i % 2 else -1) for i in range(neighbours)]
        masking.apply(words, keys)

    raw, *seconds = side_by_side(keystream, lambda: mask(1), lambda: mask(9), lambda: mask(16))
    for neighbours, took, target in zip((1, 9, 16), seconds, (None, 0.65, 0.65), strict=True):
        yield Ratio(
            f"mask with {neighbours} neighbours / raw keystream", neighbours * BYTES / took, BYTES / raw, target
        )


def seals(folder: Path) -> Iterator[Ratio]:
    """Sealing hashes twice (the plaintext's name, and the artifact's), which costs more than the cipher."""
    plain, signer, reader = np.random.default_rng(2).bytes(BYTES), SigningKey(bytes(32)), keyfiles.new_identity()
    prepared = sealing.prepare(
        manifest="0" * 64,
        run="bench0",
        round=1,
        kind="model",
        parent=None,
        plaintext=hashlib.sha256(plain).hexdigest(),
        length=BYTES,
        recipients=[reader.recipient],
        content_key=bytes(32),
        signer=signer,
    )
    path = folder / "sealed"
    expected = sealing.Expected("0" * 64, "bench0", 1, "model", None, prepared.header.plaintext, BYTES)
    hashed, sealed, opened = side_by_side(
        lambda: hashlib.sha256(plain),
        lambda: sealing.seal(plain, prepared, path, signer=signer.public),
        lambda: sealing.open_bytes(path, reader, signer=signer.public, expected=expected),
        runs=3,
    )
    yield Ratio("seal into a durable file / one SHA-256", BYTES / sealed, BYTES / hashed)
    yield Ratio("open and verify / one SHA-256", BYTES / opened, BYTES / hashed)


def main() -> bool:
    """Prints every ratio as it is known; whether all targets are met."""
    met = True
    with tempfile.TemporaryDirectory(prefix="koinon-bench-") as name:
        for ratios in (folding(Path(name)), masks(), seals(Path(name))):
            for ratio in ratios:
                print(ratio, flush=True)
                met = met and ratio.met
    return met
