"""What the test node could leave on this machine: taken before it starts and after it ended, the two are compared."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import lifecycle

Traces = dict[str, set[str]]  # by kind

# Where programs keep files. Left out of it: what the daemons of the machine change all the time, this repository, and
# what is in the folders of the home (a new folder there is seen).
_TREES = ("/etc", "/opt", "/run", "/srv", "/usr/local", "/var")
_BUSY = ("/run/systemd", "/run/udev", "/run/user", "/var/lib/systemd", "/var/log/journal")


def traces() -> Traces:
    """All that is there now."""
    return {
        "namespace": set(_namespaces()),
        "process": set(_processes()),
        "mount": set(_mounts()),
        "link": {path.name for path in Path("/sys/class/net").iterdir()},
        "route": _lines("ip", "route", "show", "table", "all") | _lines("ip", "rule"),
        "firewall": _lines("iptables-save") | _lines("ip6tables-save"),
        "cgroup": {folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "kubepods" in folder},
        "setting": set(_settings()),
        "file": set(_files()),
    }


def added(before: Traces, after: Traces) -> Traces:
    """What is there since then; of settings, those that were there with another value."""
    names = {entry.partition(" = ")[0] for entry in before["setting"]}
    new = {kind: after[kind] - before[kind] for kind in before}
    new["setting"] = {entry for entry in new["setting"] if entry.partition(" = ")[0] in names}
    return new


def left(before: Traces, during: Traces, after: Traces) -> list[str]:
    """What the node left. A process that began after `during` is not the node's."""
    new = added(before, after)
    for kind in ("namespace", "process"):
        new[kind] &= during[kind]
    return [f"{kind}: {entry}" for kind, entries in new.items() for entry in sorted(entries)]


def _namespaces() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        for kind in ("mnt", "net", "pid"):
            try:
                yield os.readlink(process / "ns" / kind)
            except OSError:
                continue  # it ended meanwhile


def _processes() -> Iterator[str]:
    """Those that run a script of the node's; what these run is in namespaces of its own."""
    scripts = str(Path(__file__).parent / "node")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile
        if scripts in command:
            yield f"{process.name} {command}"


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, target, kind, *_ = line.split()
        if not target.startswith(str(lifecycle.folder() / "buildah")):  # of an image that is being built
            yield f"{target} {kind} of {source}"


def _lines(*command: str) -> set[str]:
    if shutil.which(command[0]) is None:
        return set()
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Comments bear the time; a chain's counters change with each packet.
    return {line.partition(" [")[0] for line in text.splitlines() if not line.startswith("#")}


def _settings() -> Iterator[str]:
    """The kernel's settings: what may be written, without the number of the last process."""
    for folder, _, names in os.walk("/proc/sys"):
        for name in names:
            path = Path(folder, name)
            try:
                if path.stat().st_mode & 0o222 and path.stat().st_mode & 0o444 and name != "ns_last_pid":
                    yield f"{path} = {path.read_text().strip()}"
            except (OSError, UnicodeDecodeError):
                continue  # some can be read only in their time


def _files() -> Iterator[str]:
    skipped = {str(lifecycle.folder()), str(Path(__file__).parents[2]), *_BUSY}
    for tree in _TREES:
        for folder, inner, names in os.walk(tree):
            inner[:] = [name for name in inner if os.path.join(folder, name) not in skipped and name != "__pycache__"]
            yield from (os.path.join(folder, name) for name in [*inner, *names])
    for home in (Path.home(), Path.home() / ".cache", Path.home() / ".config", Path.home() / ".local" / "share"):
        yield from map(str, home.glob("*"))
