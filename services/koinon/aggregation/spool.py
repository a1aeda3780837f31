"""Masked uploads on disk until they are verified: parts of at most 64 MiB, resumable, checked against a BLAKE3 root.

A part is a file of its own, complete or absent. `verify` first takes the upload out of the writers' reach, then
hashes it, so that no byte can change between the check and the fold.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import blake3

from koinon.artifacts import files
from koinon.domain import ids
from koinon.domain.errors import Conflict, Invalid, TooLarge, Untrusted
from koinon.domain.wire import PART_BYTES

RESERVE = 64 * 2**20  # bytes of disk that an upload must leave free
_BLOCK = 4 * 2**20  # what the threads of a hash share


@dataclass(frozen=True)
class Upload:
    """One site's upload in one attempt: `size` bytes exactly; or, if not `exact` (round 0), at most that many."""

    run: str
    round: int
    attempt: int
    site: str
    size: int
    exact: bool = True

    def count(self) -> int:
        """Number of parts."""
        return -(-self.size // PART_BYTES)

    def part_size(self, index: int) -> int:
        """Bytes of part `index`. Raises Invalid if there is no such part."""
        if not 0 <= index < self.count():
            raise Invalid(f"There is no part {index}; this upload has {self.count()}.", where="part")
        return min(PART_BYTES, self.size - index * PART_BYTES)


class Part:
    """A part being written."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.written = file, size, 0

    def write(self, chunk: bytes | memoryview) -> None:
        """Raises TooLarge for the first byte beyond the part's size."""
        if self.written + len(chunk) > self._size:
            raise TooLarge(f"The part is larger than its {self._size} bytes.", where="part")
        self._file.write(chunk)
        self.written += len(chunk)


class Spool:
    """The uploads of a hub, under `root`. Calls for different uploads may come from different threads."""

    def __init__(self, root: Path) -> None:
        self._incoming, self._held = root / "incoming", root / "held"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._held.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def part(self, upload: Upload, index: int) -> Iterator[Part]:
        """Writes part `index`. It counts once the block ends without an error; an earlier one is replaced.

        Raises Conflict if the upload is being or has been verified, Invalid if the part ends early, TooLarge beyond its
        size, Unavailable if the disk is nearly full.
        """
        size = upload.part_size(index)
        if self._place(self._held, upload).exists():
            raise _taken(index)
        folder = self._place(self._incoming, upload)
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < size + RESERVE:
            raise files.full()
        # Two connections may send the same part; the dot hides it until it is complete.
        hidden = folder / f".{index:05d}.{secrets.token_hex(8)}"
        try:
            with files.room(), hidden.open("xb") as file:
                part = Part(file, size)
                yield part
            if part.written == 0 or (upload.exact and part.written != size):
                raise Invalid(f"The part ends after {part.written} of {size} bytes.", where=f"part {index}")
            hidden.replace(folder / f"{index:05d}")
        except FileNotFoundError:
            raise _taken(index) from None  # `verify` moved the folder meanwhile
        finally:
            hidden.unlink(missing_ok=True)

    def parts(self, upload: Upload) -> dict[int, int]:
        """The complete parts: index → bytes."""
        folder = self._place(self._held, upload)
        if not folder.exists():
            folder = self._place(self._incoming, upload)
        found = {int(path.name): path.stat().st_size for path in _complete(folder)}
        # After a loss of power a part may have its name but not its bytes.
        return {i: size for i, size in found.items() if size and not (upload.exact and size != upload.part_size(i))}

    def verify(self, upload: Upload, root: str) -> tuple[Path, ...]:
        """The upload's parts in order, once they have the BLAKE3 root `root` (hex). Repeat it after a crash.

        Raises Invalid if parts are missing (the others stay), Untrusted if the bytes are not those of the root (all are
        dropped, so that the site can send them again).
        """
        held = self._hold(upload)
        paths = _complete(held)
        hasher, block = blake3.blake3(max_threads=blake3.blake3.AUTO), memoryview(bytearray(_BLOCK))
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(block):
                    hasher.update(block[:count])
        if hasher.hexdigest() != root:
            shutil.rmtree(held)
            raise Untrusted(
                f"The upload of {upload.site} does not have the root that it signed.",
                todo="Send all parts again, then the same message.",
            )
        return paths

    def gather(self, upload: Upload, path: Path) -> None:
        """The parts there are, joined in the file `path`: the sealed first weights of round 0, which prove themselves
        when they are opened. Raises Invalid if one is missing before the last."""
        paths = _complete(self._place(self._incoming, upload))
        if not paths or int(paths[-1].name) != len(paths) - 1:
            raise Invalid(f"The upload of {upload.site} lacks parts.", todo="Send those that are missing.")
        with files.draft(path) as target:
            for part in paths:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target, _BLOCK)

    def remove(self, upload: Upload) -> None:
        """Forgets the upload: it is folded, or not needed. Absent is fine."""
        for root in (self._held, self._incoming):
            shutil.rmtree(self._place(root, upload), ignore_errors=True)

    def remove_run(self, run: str) -> None:
        """Forgets all uploads of a run: it is over."""
        for root in (self._held, self._incoming):
            shutil.rmtree(self._folder(root, run), ignore_errors=True)

    def remove_attempt(self, run: str, round: int, attempt: int) -> None:
        """Forgets all uploads of an attempt: it is committed or failed."""
        for root in (self._held, self._incoming):
            shutil.rmtree(self._folder(root, run) / f"{round}.{attempt}", ignore_errors=True)

    def _hold(self, upload: Upload) -> Path:
        held = self._place(self._held, upload)
        if held.exists():
            return held
        there = self.parts(upload)
        missing = [index for index in range(upload.count()) if index not in there]
        if missing:
            raise Invalid(
                f"The upload of {upload.site} lacks {len(missing)} of {upload.count()} parts, first {missing[0]}.",
                todo="Send the missing parts, then the same message.",
            )
        held.parent.mkdir(parents=True, exist_ok=True)
        return self._place(self._incoming, upload).replace(held)

    def _place(self, root: Path, upload: Upload) -> Path:
        folder = self._folder(root, upload.run) / f"{upload.round}.{upload.attempt}"
        return folder / ids.require_name(upload.site, where="site")

    def _folder(self, root: Path, run: str) -> Path:
        return root / ids.require_name(run, where="run")


def _taken(index: int) -> Conflict:
    return Conflict("This upload is complete; no part of it can change.", where=f"part {index}")


def _complete(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    return tuple(sorted(path for path in folder.iterdir() if not path.name.startswith(".")))
