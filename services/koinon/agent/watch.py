"""Tells when a file appears or changes in a folder, by inotify(7), without asking again and again."""

import ctypes
import os
import select
from collections.abc import Iterable
from pathlib import Path

_CLOSE_WRITE, _MOVED_TO, _DELETE = 0x8, 0x80, 0x200
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Watches `folders`. `wait` blocks; `close`, from any thread, ends it."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._events = _libc.inotify_init1(os.O_CLOEXEC)
        if self._events < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._waking, self._wake = os.pipe2(os.O_CLOEXEC)
        for folder in folders:
            mask = _CLOSE_WRITE | _MOVED_TO | _DELETE
            if _libc.inotify_add_watch(self._events, os.fsencode(folder), mask) < 0:
                raise OSError(ctypes.get_errno(), f"inotify_add_watch {folder}")

    def wait(self, seconds: float | None = None) -> bool:
        """True after a change, or after `seconds`; False when closed."""
        ready, _, _ = select.select([self._events, self._waking], [], [], seconds)
        if self._waking in ready:
            return False
        if self._events in ready:
            os.read(self._events, 2**16)
        return True

    def close(self) -> None:
        os.write(self._wake, b"\0")
