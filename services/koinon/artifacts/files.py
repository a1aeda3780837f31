"""Files that appear whole and durable, or not at all; and bytes to read in order, wherever they are."""

import errno
import io
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from koinon.domain.errors import Unavailable, Untrusted

Buffer = bytes | bytearray | memoryview


@contextmanager
def draft(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """A new file of mode 0600 that takes the name `path` when the block ends without an error.

    Raises Unavailable if the disk is full, FileExistsError if `path` is there and must not be replaced.
    """
    hidden = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        with room(), os.fdopen(os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            hidden.replace(path)
        else:
            path.hardlink_to(hidden)  # unlike a rename, it never takes the place of what is there
        sync(path.parent)
    finally:
        hidden.unlink(missing_ok=True)


@contextmanager
def room() -> Iterator[None]:
    """A full disk becomes Unavailable: the same call works once there is room."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full() from None
        raise


def full() -> Unavailable:
    return Unavailable("The disk is full.", todo="Make room; the same step can then be repeated.")


def sync(directory: Path) -> None:
    """Makes the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Row(io.RawIOBase):
    """Buffers read one after the other, without a copy of the whole."""

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._views = [memoryview(buffer).cast("B") for buffer in reversed(buffers) if len(buffer)]

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview | bytearray) -> int:  # type: ignore[override]
        if not self._views:
            return 0
        view = self._views.pop()
        count = min(len(view), len(target))
        target[:count] = view[:count]
        if count < len(view):
            self._views.append(view[count:])
        return count


@contextmanager
def reading(source: Path | Buffer | Sequence[Buffer] | io.BufferedIOBase) -> Iterator[io.BufferedIOBase]:
    """`source` as a stream. One that was given open stays open."""
    if isinstance(source, io.BufferedIOBase):
        yield source
        return
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
        return
    with io.BufferedReader(_Row([source] if isinstance(source, Buffer) else source)) as row:
        yield row


def fill(stream: io.BufferedIOBase, view: memoryview) -> None:
    """Reads exactly `view` from the stream. Raises Untrusted if it ends before."""
    while view:
        count = stream.readinto(view)
        if not count:
            raise Untrusted("It ends before its declared length.", where="artifact")
        view = view[count:]


def at_end(stream: io.BufferedIOBase) -> bool:
    return not stream.read(1)
