"""One hub process per folder."""

import fcntl
import os
from pathlib import Path
from typing import Self

from koinon.domain.errors import Conflict


class HubLock:
    """`with HubLock(folder): …` holds the folder until the process ends, however it ends.

    Raises Conflict at once, naming the process that holds it, and changes nothing then. The folder must exist.
    The lock is the kernel's on the open file `lock`; that file is never removed, since two processes could
    then lock two files of one name.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        self._file = -1

    def __enter__(self) -> Self:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 20).decode(errors="replace").strip() or "unknown"
            os.close(file)
            if not isinstance(error, BlockingIOError):
                raise
            raise Conflict(
                f"Another hub (process {holder}) uses this folder.",
                where=str(self._path.parent),
                todo="Stop it first, or give this one its own folder.",
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        return self

    def __exit__(self, *args: object) -> None:
        os.close(self._file)
