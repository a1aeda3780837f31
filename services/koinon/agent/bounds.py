"""Ends a trainer that takes more memory or disk than its grant: a look at all of its processes every second.

A watch, not a limit of the kernel's: between two looks more can be taken for a moment. Memory is what the system cannot
take back: anonymous pages and shared memory, shared pages counted once (PSS, since Ray's workers share many).
"""

import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event, Thread

from koinon.agent import wall
from koinon.domain.grant import Resources

EVERY = 1.0  # seconds
MEMORY, DISK = "out_of_memory", "out_of_disk"
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Watch:
    """Calls `exceeded` once, with the code, when the tree below `process` or its `folder` outgrows `resources`."""

    def __init__(self, process: int, folder: Path, resources: Resources, exceeded: Callable[[str], None], *,
                 own_shared_memory: bool, every: float = EVERY) -> None:  # fmt: skip
        self._process, self._folder, self._resources = process, folder, resources
        self._exceeded, self._own, self._every = exceeded, own_shared_memory, every
        self._over = Event()
        Thread(target=self._run, name="trainer-bounds", daemon=True).start()

    def end(self) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            used, stored = usage(self._process, self._folder, own_shared_memory=self._own)
            code = MEMORY if used > self._resources.memory else DISK if stored > self._resources.disk else None
            if code is not None and not self._over.is_set():
                self._exceeded(code)
                return


def usage(process: int, folder: Path, *, own_shared_memory: bool) -> tuple[int, int]:
    """Bytes of memory and of disk: of all processes below `process`, and in `folder` with files deleted but open."""
    tree = wall.descendants(process)
    anonymous = shared = 0
    for pid in tree:
        own, mapped = _memory(pid)
        anonymous, shared = anonymous + own, shared + mapped
    disk, in_memory = _unlinked(tree, folder)
    if own_shared_memory:
        in_memory += _shared_memory(tree)
    return anonymous + max(shared, in_memory), _stored(folder) + disk


def _memory(pid: int) -> tuple[int, int]:
    """Bytes that the process holds, its share of shared pages: anonymous or swapped, and shared memory."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        size = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return size["Pss_Anon"] + size.get("SwapPss", 0), size["Pss_Shmem"]
    except (OSError, KeyError, ValueError, IndexError):
        return _resident(pid)


def _resident(pid: int) -> tuple[int, int]:
    """The same where the system tells no PSS: too much where processes share pages since a fork."""
    try:
        words = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(words[1]) - int(words[2])) * _PAGE, 0
    except (OSError, ValueError, IndexError):
        return 0, 0  # it ended meanwhile


def _unlinked(tree: Iterable[int], folder: Path) -> tuple[int, int]:
    """Bytes of open files without a name: on the disk of `folder`, and in memory (memfd)."""
    try:
        disk = folder.stat().st_dev
    except OSError:
        return 0, 0
    sizes: dict[tuple[int, int], int] = {}
    for pid in tree:
        shm = _device(f"/proc/{pid}/root/dev/shm")
        for handle in _entries(f"/proc/{pid}/fd"):
            try:
                found = os.stat(handle)
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 0 and found.st_dev != shm:
                sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    on_disk = sum(size for (device, _), size in sizes.items() if device == disk)
    return on_disk, sum(sizes.values()) - on_disk


def _shared_memory(tree: Iterable[int]) -> int:
    """Bytes in the /dev/shm behind the walls; their launcher, which comes first, sees the machine's."""
    ours = _device("/dev/shm")
    for pid in tree:
        path = f"/proc/{pid}/root/dev/shm"
        if _device(path) not in (None, ours):
            try:
                found = os.statvfs(path)
            except OSError:
                continue
            return (found.f_blocks - found.f_bfree) * found.f_frsize
    return 0


def _stored(folder: Path) -> int:
    """Bytes on disk in `folder`, a file with several names once."""
    sizes: dict[int, int] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:
                continue  # it went meanwhile
            sizes[found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def _entries(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []
