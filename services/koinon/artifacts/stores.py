"""Where sealed artifacts are kept: a directory here, a bucket of an S3 server in `s3`. Both hold ciphertext only.

An artifact's name is the SHA-256 of its sealed bytes; writing it again changes nothing.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from koinon.artifacts import files, sealing
from koinon.artifacts.sealing import Sealed
from koinon.domain.errors import Invalid, NotFound, Unavailable, Untrusted

_BLOCK = 2**20
_NAME = re.compile(r"[0-9a-f]{64}")


class ArtifactStore(Protocol):
    """Every implementation passes tests/services/test_artifact_stores.py. Calls may come from any thread.

    All raise Unavailable while the store is away; the same call works once it is back. A name that is not 64 hex
    digits is Invalid.
    """

    def put(self, sealed: Sealed) -> str:
        """Stores it durably, all or nothing, and returns its name. May be repeated.

        Raises TypeError for anything but a Sealed, Untrusted if its bytes are not those that were sealed.
        """
        ...

    def open(self, name: str, *, offset: int = 0, length: int | None = None) -> io.BufferedIOBase:
        """`length` bytes (None: all that follow) from `offset`, to be read in order and closed. Raises NotFound.

        They are not verified: use `sealing.open_bytes` or `open_file`, or `fetch`.
        """
        ...

    def size(self, name: str) -> int:
        """Bytes of the sealed artifact. Raises NotFound."""
        ...

    def exists(self, name: str) -> bool: ...

    def delete(self, name: str) -> None:
        """Absent is fine."""
        ...

    def names(self) -> Iterator[str]:
        """All artifacts, in any order."""
        ...

    def check(self) -> None:
        """Raises Unavailable unless the store answers."""
        ...


def fetch(store: ArtifactStore, name: str, path: Path) -> None:
    """A copy of the sealed bytes at `path`, which appears only if they hash to `name`. Raises NotFound, Untrusted."""
    with store.open(name) as source, files.draft(path) as target:
        _copy(source, target, name)


def check_name(name: str) -> str:
    """Raises Invalid unless it is 64 hex digits."""
    if not _NAME.fullmatch(name):
        raise Invalid("The name of an artifact is 64 hex digits.", where="artifact")
    return name


def check_range(offset: int, length: int | None) -> None:
    """Raises Invalid if one is negative."""
    if offset < 0 or (length is not None and length < 0):
        raise Invalid("Offset and length are not negative.", where="range")


class DirectoryStore:
    """Files below `root`, in folders by the first two digits of their names."""

    def __init__(self, root: Path) -> None:
        self._root = root
        with self._reachable():
            root.mkdir(parents=True, exist_ok=True)

    def put(self, sealed: Sealed) -> str:
        sealing.verify(sealed)
        path = self._path(sealed.name)
        self.check()
        with self._reachable():
            path.parent.mkdir(exist_ok=True)
            with sealed.path.open("rb") as source, files.draft(path) as target:
                _copy(source, target, sealed.name)
        return sealed.name

    def open(self, name: str, *, offset: int = 0, length: int | None = None) -> io.BufferedIOBase:
        check_range(offset, length)
        size = self.size(name)
        with self._reachable():
            file = self._path(name).open("rb", buffering=0)
        file.seek(offset)
        return io.BufferedReader(_Window(file, size if length is None else length))

    def size(self, name: str) -> int:
        path = self._path(name)
        self.check()
        with self._reachable():
            if not path.is_file():
                raise NotFound("There is no such artifact.", where=name)
            return path.stat().st_size

    def exists(self, name: str) -> bool:
        path = self._path(name)
        self.check()
        with self._reachable():
            return path.is_file()

    def delete(self, name: str) -> None:
        path = self._path(name)
        self.check()
        with self._reachable():
            path.unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        self.check()
        return (path.name for path in self._root.glob("??/*") if _NAME.fullmatch(path.name))

    def check(self) -> None:
        if not self._root.is_dir():
            raise Unavailable("The directory of the artifacts is away.", where=str(self._root))

    def _path(self, name: str) -> Path:
        return self._root / check_name(name)[:2] / name

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(f"The directory of the artifacts: {error.strerror}.", where=str(self._root)) from None


class _Window(io.RawIOBase):
    """The next `length` bytes of a file."""

    def __init__(self, file: io.FileIO, length: int) -> None:
        self._file, self._left = file, length

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview | bytearray) -> int:  # type: ignore[override]
        count = self._file.readinto(memoryview(target)[: self._left])
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _copy(source: io.BufferedIOBase, target: BinaryIO, name: str) -> None:
    hasher = hashlib.sha256()
    while block := source.read(_BLOCK):
        hasher.update(block)
        target.write(block)
    if hasher.hexdigest() != name:
        raise Untrusted("The bytes of the artifact are not the ones that it is named after.", where=name)


def from_url(url: str, environment: Mapping[str, str] = os.environ) -> ArtifactStore:
    """`file:///folder`, or `s3://host:port/bucket`, with `?tls=no` for a server without TLS.

    Credentials are KOINON_S3_ACCESS_KEY and KOINON_S3_SECRET_KEY of the environment, never of the URL. Raises Invalid,
    or Unavailable if the store does not answer.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme != "s3":
        raise Invalid(
            "This is no place for artifacts.", where="artifacts", todo="Use file:///… or s3://host:port/bucket."
        )
    from koinon.artifacts import s3  # its client is installed at the hub only

    return s3.from_url(parts, environment)
