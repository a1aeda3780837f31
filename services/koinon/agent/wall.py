"""The launcher that stands between agent and trainer: builds the walls, starts the command, leaves no process.

Run as a script with a JSON argument `{"command", "environment", "directory", "hide", "keep", "writable",
"shared_memory", "walls", "remove", "report"}`; standard library only, so that it starts in milliseconds. File
descriptor 0 is a pipe whose other end only the agent holds: when the agent ends, however it ends, everything started
here ends. It answers one JSON line on the file descriptor `report`: `{"walls": {name: true or why not}}`, and then
runs the command.

Walls (man 7 namespaces): `network` own network namespace with loopback only; `processes` own pid namespace, whose end
ends every process in it; `files` an empty tmpfs covers what `hide` names, except what `keep` names, except what `hide`
names in there, to any depth; everything but `writable` is read-only. The command runs in a nested user namespace, where
none of these mounts can be undone (man 7 mount_namespaces, "Restrictions on mount namespaces"), without capabilities.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
from typing import Any, NoReturn

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_PR_CAPBSET_DROP = 24
_MOUNT_SETATTR, _AT_RECURSIVE, _ATTR_RDONLY = 442, 0x8000, 1
_AT_FDCWD = -100
_MACHINE = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi")
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    """A C library call; raises OSError."""
    if getattr(_libc, name)(*arguments) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() if kind else None, flags, data.encode())


def _read_only(path: str, *, on: bool) -> None:
    """Makes a mount read-only with all below it, or writable again (man 2 mount_setattr, Linux 5.12)."""
    attributes = struct.pack("QQQQ", _ATTR_RDONLY if on else 0, 0 if on else _ATTR_RDONLY, 0, 0)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    flags = _AT_RECURSIVE if on else 0
    _call("syscall", _MOUNT_SETATTR, _AT_FDCWD, path.encode(), flags, buffer, ctypes.c_size_t(len(attributes)))


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, value, 0, 0, 0)


def _new_user(flags: int) -> None:
    """A new user namespace in which the present user keeps its number."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        request = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(link, 0x8914, request)  # SIOCSIFFLAGS


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _shown(path: str, entries: dict[str, bool]) -> bool:
    """Whether the entry that encloses `path` most closely keeps it (True); without one it shows."""
    around = [entry for entry in entries if entry != path and _inside(path, entry)]
    return entries[max(around, key=len)] if around else True


def _bind(handle: int, path: str, *, folder: bool) -> None:
    """Shows again at `path`, in a cover, what was opened before it was covered."""
    os.makedirs(path if folder else os.path.dirname(path), exist_ok=True)
    if not folder:
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))
    _mount(f"/proc/self/fd/{handle}", path, None, _MS_BIND | _MS_REC)


def _cover_all(hide: list[str], keep: list[str]) -> None:
    """Covers what `hide` names, shows what `keep` names, to any depth: the innermost of them decides, a tie keeps."""
    real = {os.path.realpath(path): False for path in hide if os.path.exists(path)}
    real |= {os.path.realpath(path): True for path in keep if os.path.exists(path)}
    links = {path: os.path.realpath(path) for path in keep if os.path.exists(path)}
    real.pop("/", None)
    held = {path: (os.open(path, os.O_PATH), os.path.isdir(path)) for path, kept in real.items() if kept}
    for path in sorted(real):  # NB: a folder comes before what lies in it
        shows = _shown(path, real)
        if real[path] and not shows:
            _bind(held[path][0], path, folder=held[path][1])
        elif not real[path] and shows:
            if os.path.isdir(path):
                _mount("none", path, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=4m,mode=755")
            else:
                _mount(os.devnull, path, None, _MS_BIND)
    for handle, _ in held.values():
        os.close(handle)
    for path in (path for path in links if not os.path.lexists(path)):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(links[path], path)


def _close_files(order: dict[str, Any]) -> None:
    """Builds the wall `files` in the present mount namespace."""
    writable = sorted({os.path.realpath(path) for path in order["writable"]})
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _cover_all(order["hide"], [*order["keep"], *writable])
    for path in writable:
        _mount(path, path, None, _MS_BIND)
    if os.path.isdir("/dev"):
        os.makedirs("/dev/shm", exist_ok=True)
        options = f"size={int(order['shared_memory'])},mode=1777"
        _mount("none", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, options)
        writable.append("/dev/shm")
        with contextlib.suppress(FileExistsError):
            os.symlink("/proc/self/fd", "/dev/fd")
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    # A user namespace more would give the command mounts of its own, which no watch sees: only the one of `_run`.
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("1")
    for name in _MACHINE:  # where a root in a namespace would still be the machine's
        if os.path.exists(name):
            _mount(name, name, None, _MS_BIND)
    _read_only("/", on=True)
    for path in [*writable, "/proc"]:
        _read_only(path, on=False)


def _drop_capabilities() -> None:
    """So that also a root has none after exec: man 7 capabilities, "Capability bounding set"."""
    with contextlib.suppress(OSError):  # EINVAL beyond the last one
        for number in range(64):
            _prctl(_PR_CAPBSET_DROP, number)


def _run(order: dict[str, Any], *, nested: bool) -> NoReturn:
    """Becomes the command."""
    try:
        os.setsid()
        if nested:
            _new_user(_NEWNS)
            _drop_capabilities()
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.chdir(order["directory"])
        os.execvpe(order["command"][0], order["command"], order["environment"])
    except OSError as error:
        os.write(2, f"the wall could not start the trainer: {error}\n".encode())
    os._exit(127)


def descendants(root: int) -> list[int]:
    """Process ids below `root`, by /proc."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parents[int(entry)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it ended meanwhile
    found: list[int] = []
    edge = {root}
    while edge:
        edge = {pid for pid, parent in parents.items() if parent in edge}
        found += edge
    return found


def _kill_all(*, in_namespace: bool) -> None:
    """Kills and reaps everything that was started here; orphans are ours (subreaper, or pid 1)."""
    while True:
        if in_namespace:
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                return
        else:
            for pid in descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _watch(child: int, *, in_namespace: bool) -> int:
    """Waits for the command or for the agent's end of the pipe; kills what is left. Returns the exit code."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    code = 143
    ended = False
    while not ended:
        ready, _, _ = select.select([0, reading], [], [])
        if reading in ready:
            os.read(reading, 4096)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    pid, status, ended = 0, 0, True
                if pid == 0:
                    break
                if pid == child:
                    code, ended = os.waitstatus_to_exitcode(status), True
        if 0 in ready and not os.read(0, 1):
            ended = True
    _kill_all(in_namespace=in_namespace)
    return code if code >= 0 else 128 - code


def _report(order: dict[str, Any], walls: dict[str, Any]) -> None:
    os.write(order["report"], json.dumps({"walls": walls}).encode() + b"\n")
    os.close(order["report"])


def _open_air(order: dict[str, Any], why: str) -> int:
    """Without namespaces: no walls, but the tree still ends as a whole."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _report(order, dict.fromkeys(("network", "processes", "files"), why))
    child = os.fork()
    if child == 0:
        _run(order, nested=False)
    return _watch(child, in_namespace=False)


def _first(order: dict[str, Any]) -> int:
    """Process 1 of the new pid namespace."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    walls: dict[str, Any] = {"network": True, "processes": True, "files": True}
    for name, build in (("network", _loopback_up), ("files", lambda: _close_files(order))):
        try:
            build()
        except OSError as error:
            walls[name] = str(error)
    _report(order, walls)
    child = os.fork()
    if child == 0:
        _run(order, nested=walls["files"] is True)
    return _watch(child, in_namespace=True)


def _build(order: dict[str, Any]) -> int:
    """Builds the walls and waits for process 1 behind them."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        if not order["walls"]:
            raise OSError("switched off")
        _new_user(_NEWNS | _NEWIPC | _NEWPID | _NEWNET)
    except OSError as error:
        return _open_air(order, str(error))
    child = os.fork()
    if child == 0:
        os._exit(_first(order))
    os.close(order["report"])
    _, status = os.waitpid(child, 0)
    return _code(status)


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main() -> int:
    """Stays outside the walls, to remove the folder `remove` when all is over, even if the agent was killed."""
    order = json.loads(sys.argv[1])
    child = os.fork()
    if child == 0:
        os._exit(_build(order))
    os.close(order["report"])
    signal.signal(signal.SIGTERM, lambda *_: None)
    _, status = os.waitpid(child, 0)
    if order["remove"]:
        shutil.rmtree(order["remove"], ignore_errors=True)
    return _code(status)


if __name__ == "__main__":
    os._exit(main())
