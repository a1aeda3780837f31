"""The second place (PROTECTION.md, Durable before it matters): epoch and sequence outside the journal's backup.

A journal that is behind its marker was restored from a backup: it may have forgotten what this site already
released. The marker also keeps, per run, the last round this site released shares of, so that such a journal can
refuse the rounds that were opened before.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from koinon.domain.errors import Invalid

_KEPT_RUNS = 10_000


@dataclass(frozen=True)
class Mark:
    """`rounds`: the highest round released per run, the longest unchanged run first."""

    epoch: int = 1
    sequence: int = 0
    rounds: dict[str, int] = field(default_factory=dict)

    def joined(self, run: str, round_: int) -> "Mark":
        rounds = {key: value for key, value in self.rounds.items() if key != run}
        rounds[run] = max(round_, self.rounds.get(run, -1))
        while len(rounds) > _KEPT_RUNS:
            rounds.pop(next(iter(rounds)))
        return Mark(self.epoch, self.sequence, rounds)

    def behind(self, other: "Mark") -> bool:
        return (self.epoch, self.sequence) < (other.epoch, other.sequence)


def write_durable(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replaces `path` by `data` so that a crash leaves the old or the new content, and it survives a power cut."""
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _overwrite(path: Path, data: bytes) -> None:
    """Writes in place and waits for the disk once. A crash may tear this file, which is why there are two."""
    handle = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.pwrite(handle, data, 0)
        os.ftruncate(handle, len(data))
        os.fdatasync(handle)
    finally:
        os.close(handle)


class Marker:
    """The marker in a folder of its own: two files written in turn, the one that is whole and further counts."""

    def __init__(self, folder: Path, write: Callable[[Path, bytes], None] = _overwrite) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._slots = (folder / "marker-0.json", folder / "marker-1.json")
        self._write = write
        self._next = 0

    def read(self) -> Mark | None:
        """None before the first write. Raises Invalid if there are files but no marker in them."""
        found = [(self._read(path), slot) for slot, path in enumerate(self._slots) if path.exists()]
        whole = [(mark, slot) for mark, slot in found if mark is not None]
        if found and not whole:
            raise Invalid(
                "The marker cannot be read, so a restored journal could not be told from a current one.",
                where=str(self._slots[0]),
                todo="Restore the marker folder from where it is kept; do not delete it.",
            )
        if not whole:
            return None
        mark, slot = max(whole, key=lambda pair: (pair[0].epoch, pair[0].sequence))
        self._next = 1 - slot
        return mark

    def _read(self, path: Path) -> Mark | None:
        try:
            digest, _, text = path.read_bytes().partition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != digest:
                return None
            value = json.loads(text)
            rounds = {str(run): int(number) for run, number in value["rounds"].items()}
            return Mark(int(value["epoch"]), int(value["sequence"]), rounds)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, mark: Mark) -> None:
        """Durable on return. The last whole marker stays until then."""
        path = self._slots[self._next]
        text = json.dumps({"epoch": mark.epoch, "sequence": mark.sequence, "rounds": mark.rounds}).encode()
        data = hashlib.sha256(text).hexdigest().encode() + b"\n" + text
        if path.exists():
            self._write(path, data)
        else:  # the first time the other one may not be there either: appear whole, or not at all
            draft = path.with_name(f".{path.name}.new")
            self._write(draft, data)
            os.replace(draft, path)
            sync_folder(path.parent)
        self._next = 1 - self._next
