"""What the agent itself reads of a researcher's package: which files of Python it has, and how many lines each.

The zip is somebody else's: its directory is bounded before it is parsed, and what it unpacks to before it is read.
"""

import lzma
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from koinon.agent.policy import Refusal

MAX_FILES = 10_000  # as the trainer
MAX_BYTES = 64 * 2**20  # of Python, unpacked
_MAX_DIRECTORY = 4 * 2**20
_END, _LOCATOR = b"PK\x05\x06", b"PK\x06\x07"
_END_BYTES, _LOCATOR_BYTES, _LONGEST_COMMENT = 22, 20, 2**16 - 1
_BLOCK = 2**20
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
            OSError, ValueError)  # fmt: skip


def lines(path: Path) -> dict[str, int]:
    """The number of lines of each .py file in the zip. Raises Refusal if it is none, or larger than a trainer takes."""
    try:
        with path.open("rb") as file:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                code = [member for member in members if member.filename.endswith(".py")]
                if len(members) > MAX_FILES or sum(member.file_size for member in code) > MAX_BYTES:
                    raise _refusal(f"more than {MAX_FILES} files, or {MAX_BYTES} bytes of code")
                return {member.filename: _count(archive, member) for member in code}
    except _DAMAGED as error:
        raise _refusal(f"no zip ({type(error).__name__})") from None


def _check_directory(file: IO[bytes]) -> None:
    """Bounds the central directory by its end record (APPNOTE.TXT 4.3.16), which is all that is read for it.

    zipfile trusts the directory's size and not the number of entries, so both are bounded.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT - _LOCATOR_BYTES))
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or tail[max(0, at - _LOCATOR_BYTES) :].startswith(_LOCATOR):
        raise _refusal("no zip of the plain form")
    entries, directory = struct.unpack_from("<HI", tail, at + 10)
    if entries > MAX_FILES or directory > _MAX_DIRECTORY:
        raise _refusal(f"{entries} entries in a directory of {directory} bytes")


def _count(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    found, last = 0, b"\n"
    with archive.open(member) as file:  # NB: zipfile stops at the declared size, which the sum has bounded
        while block := file.read(_BLOCK):
            found, last = found + block.count(b"\n"), block[-1:]
    return found + (last != b"\n")


def _refusal(what: str) -> Refusal:
    return Refusal("package_invalid", f"The package has {what}.", todo="Its author must make a smaller one.")
