"""Adds verified uploads, word by word modulo 2^32, into durable sums that are named by their hash.

A batch becomes a new file: read the old sum block by block, add the block of every upload, write, hash,
fsync. The sum is still masked, so that its file tells nothing. Memory is two blocks, whatever n and D.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import blake3
import numpy as np
import numpy.typing as npt

from koinon.artifacts import files
from koinon.domain.errors import Invalid, NotFound, Untrusted
from koinon.domain.wire import PART_BYTES

Words = npt.NDArray[np.uint32]

BLOCK = 2**20  # bytes; divides PART_BYTES; a sum's and an upload's block stay in the cache
_DRAFT = "draft"


class Accumulator:
    """The sums of one attempt: files of `words` little-endian uint32 in `directory`, named by their BLAKE3 hash.

    The order that survives a crash at any point: `fold`; its name and the folded roots into SQL in one
    transaction; `keep` and the spool's `remove`. One thread at a time. The directory may serve all attempts of a run,
    then the file of an obsolete sum takes the next one: pages that exist are written 8 times faster than new ones.
    """

    def __init__(self, directory: Path, words: int) -> None:
        self._directory, self._bytes = directory, 4 * words
        directory.mkdir(parents=True, exist_ok=True)

    def fold(self, base: str | None, uploads: Sequence[Sequence[Path]]) -> str:
        """`base` (None: zero) plus `uploads`, each the parts that `spool.verify` returned. Durable on return.

        Returns the name of the new sum; the same inputs give the same name. Raises NotFound without `base`, Invalid if
        an upload is not as long as the sum, Unavailable if the disk is full.
        """
        for parts in uploads:
            if sum(part.stat().st_size for part in parts) != self._bytes:
                raise Invalid("A verified upload has another size than the sum.")
        start = self._path(base) if base else None
        draft = self._directory / _DRAFT
        with files.room(), os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            name = self._add(file, start, uploads)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._directory / name)
        files.sync(self._directory)
        return name

    def _add(self, target: BinaryIO, base: Path | None, uploads: Sequence[Sequence[Path]]) -> str:
        total, source = np.zeros(BLOCK // 4, "<u4"), np.empty(BLOCK // 4, "<u4")
        hasher = blake3.blake3()
        for start in range(0, self._bytes, BLOCK):
            words = min(BLOCK, self._bytes - start) // 4
            if base is None:
                total[:words] = 0
            else:
                _read(base, start, total[:words])
            part, offset = divmod(start, PART_BYTES)
            for parts in uploads:
                _read(parts[part], offset, source[:words])
                np.add(total[:words], source[:words], out=total[:words])
            block = total[:words].data.cast("B")
            hasher.update(block)
            target.write(block)
        return hasher.hexdigest()

    def load(self, name: str) -> Words:
        """The sum in memory, U32[words], to be unmasked there. Raises NotFound, Untrusted if it is not as named."""
        path = self._path(name)
        if path.stat().st_size != self._bytes:
            raise Untrusted("A folded sum has another size than the vector.", where=name)
        result = np.empty(self._bytes // 4, "<u4")
        _read(path, 0, result)
        if blake3.blake3(result.data.cast("B")).hexdigest() != name:
            raise Untrusted("A folded sum is damaged.", where=name)
        return result

    def keep(self, name: str | None) -> None:
        """Forgets all sums but `name`; the file of one of them stays to be written over."""
        for path in self._directory.iterdir():
            if path.name not in (name, _DRAFT):
                path.replace(self._directory / _DRAFT)

    def _path(self, name: str) -> Path:
        path = self._directory / name
        if not path.is_file():
            raise NotFound("There is no such folded sum.", where=name)
        return path


def _read(path: Path, offset: int, into: Words) -> None:
    """Fills `into` from byte `offset`. Reading into hot memory costs less than the page faults of a map."""
    view = into.data.cast("B")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while view:
            count = os.preadv(descriptor, [view], offset)
            if count == 0:
                raise Untrusted("A file became shorter while it was read.", where=path.name)
            view, offset = view[count:], offset + count
    finally:
        os.close(descriptor)
