"""Assemble the root of an image that runs Python and nothing else.

Usage: rootfs.py DIRECTORY

The interpreter that runs this, its standard library, the shared libraries of both and of compiled packages, the
certificates of public authorities and a user. No shell, no package manager. Debian's own records of the packages that
these files come from go along (`/var/lib/dpkg/status.d` and the licences), so that scanners find them.
"""

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

USER = 65532
FOR_WHEELS = (  # what the manylinux policy lets compiled packages expect, as far as a program without a screen needs it
    "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1",
    "libstdc++.so.6", "libutil.so.1", "libz.so.1",
)  # fmt: skip
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CERTIFICATES_FROM = "ca-certificates"  # which makes the file when it is installed, and so does not list it
LOCALE = Path("/usr/lib/locale/C.utf8")
NOT_TO_RUN = (
    "__pycache__", "config-3*", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages",
    "sitecustomize.py", "test", "tests", "tkinter", "turtledemo",
    "_curses*.so", "_dbm*.so", "_gdbm*.so", "_test*.so", "_tkinter*.so", "_xx*.so", "nis*.so", "readline*.so",
)  # fmt: skip
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nologin\nkoinon:x:{USER}:{USER}:koinon:/tmp:/nologin\n",
    "etc/group": f"root:x:0:\nkoinon:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def main() -> None:
    root = Path(sys.argv[1])
    root.mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        if Path("/", name).is_symlink():  # as Debian merges them into /usr
            (root / name).symlink_to(os.readlink(Path("/", name)))
    executable = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_path("stdlib"))
    left_out = shutil.ignore_patterns(*NOT_TO_RUN)
    shutil.copytree(library, inside(root, library), ignore=left_out, ignore_dangling_symlinks=True)
    extensions = inside(root, library).rglob("*.so")
    for path in {executable, CERTIFICATES, *shared([executable, *extensions, *located(FOR_WHEELS)])}:
        copy(path, root)
    inside(root, executable).with_name("python3").symlink_to(executable.name)
    write_system_files(root)
    record_packages(root)
    compileall.compile_dir(
        inside(root, library),
        stripdir=str(root),
        quiet=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def inside(root: Path, path: Path) -> Path:
    """Where a file of the system goes below `root`: links among its folders are followed, its own name is kept."""
    return root / os.path.realpath(path.parent).lstrip("/") / path.name


def copy(path: Path, root: Path) -> None:
    target = inside(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def located(names: Iterable[str]) -> list[Path]:
    """The paths of shared libraries. Raises SystemExit if the base image lacks one."""
    cache = subprocess.run(["ldconfig", "-p"], text=True, capture_output=True, check=True).stdout
    paths = dict(re.findall(r"^\t(\S+) .* => (\S+)$", cache, re.MULTILINE))
    if missing := [name for name in names if name not in paths]:
        sys.exit(f"the base image lacks {', '.join(missing)}")
    return [Path(paths[name]) for name in names]


def shared(programs: Iterable[Path]) -> Iterator[Path]:
    """The shared libraries that programs or libraries need, the loader and libraries among `programs` included."""
    for program in programs:
        if program.name in FOR_WHEELS:
            yield program
        listed = subprocess.run(["ldd", program], text=True, capture_output=True, check=True).stdout
        if "not found" in listed:
            sys.exit(f"{program} lacks a library:\n{listed}")
        yield from (Path(found) for found in re.findall(r"(/\S+) \(0x", listed))


def write_system_files(root: Path) -> None:
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    shutil.copy2("/usr/lib/os-release", root / "etc/os-release")
    shutil.copytree(LOCALE, root / str(LOCALE).lstrip("/"), dirs_exist_ok=True)
    for configuration in (Path("/etc/ld.so.conf"), *Path("/etc/ld.so.conf.d").glob("*.conf")):
        copy(configuration, root)
    subprocess.run(["ldconfig", "-r", root], check=True)


def record_packages(root: Path) -> None:
    """Debian's entry and licence of every package that has a file below `root`."""
    status = Path("/var/lib/dpkg/status").read_text()
    entries = {match[1]: entry for entry in status.split("\n\n") if (match := re.match(r"Package: (\S+)", entry))}
    records = root / "var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    for listing in sorted(Path("/var/lib/dpkg/info").glob("*.list")):
        package = listing.stem.partition(":")[0]
        paths = [inside(root, Path(line)) for line in listing.read_text().splitlines() if line != "/."]
        if package == CERTIFICATES_FROM or any(path.is_file() for path in paths):
            (records / package).write_text(entries[package].strip() + "\n")
            licence = root / f"usr/share/doc/{package}/copyright"
            licence.parent.mkdir(parents=True)
            shutil.copyfile(f"/usr/share/doc/{package}/copyright", licence)
    shutil.copytree("/usr/share/common-licenses", root / "usr/share/common-licenses", symlinks=True)


if __name__ == "__main__":
    main()
