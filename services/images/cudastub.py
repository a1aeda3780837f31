"""Write small libraries that stand in for the CUDA ones that torch links to but never calls on a CPU.

Usage: cudastub.py TORCH OUTPUT      TORCH is the folder of the installed package

PyPI has torch for Linux only with CUDA: its libraries name NVIDIA's as needed, so all must be there, with the symbols
and symbol versions asked for, or `import torch` fails. Without a GPU no function of them is called but those that ask
how many GPUs there are, and those must answer "none". Needs gcc and binutils.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

NEEDED = re.compile(r"\(NEEDED\).*\[(lib((?:cu|nv|nccl)\w*)\.so[.\d]*)\]")
SYMBOL = re.compile(r"(\w+)(?:@+([\w.]+))?")
DRIVER = "libcuda.so.1"  # asked for only by what is loaded together with the driver
VERSIONS = {"nvshmem_host": "NVSHMEM"}  # the symbol version of a library, where it is not the library's name
NO_DEVICE = 100  # cudaErrorNoDevice: torch takes it for "no GPU", without a warning


def main() -> None:
    torch, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    libraries = sorted((torch / "lib").glob("*.so*"))
    missing = undefined(libraries)
    for name, stem in needed(libraries).items():
        version = VERSIONS.get(stem, name)
        versioned = sorted(symbol for symbol, wanted in missing if wanted == version)
        plain = sorted(symbol for symbol, wanted in missing if not wanted and symbol.lower().startswith(stem.lower()))
        build(output / name, version, versioned, plain)
        print(f"{name}: stands in with {len(versioned) + len(plain)} symbols")


def needed(libraries: Iterable[Path]) -> dict[str, str]:
    """NVIDIA's libraries that `libraries` name, such as libcublas.so.13, each with its stem, such as cublas."""
    found = NEEDED.findall(run("readelf", "--dynamic", "--wide", *libraries))
    return {name: stem for name, stem in sorted(found) if name != DRIVER}


def undefined(libraries: Iterable[Path]) -> set[tuple[str, str]]:
    """Symbols that `libraries` expect of others, each with its version or an empty string."""
    listed = run("nm", "--dynamic", "--undefined-only", "--format=just-symbols", *libraries)
    return {(match[1], match[2] or "") for line in listed.split() if (match := SYMBOL.fullmatch(line))}


def build(path: Path, version: str, versioned: list[str], plain: list[str]) -> None:
    """Compiles a library whose functions all answer that there is no device."""
    source = "".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in versioned + plain)
    script = path.with_suffix(".map")
    # A symbol that the script does not name has no version, as those in `plain` must.
    script.write_text(f"{version} {{ global: {'; '.join(versioned or ['_none'])}; }};")
    options = ("-shared", "-fPIC", "-nostdlib", "-s", "-w", f"-Wl,-soname,{path.name},--version-script={script}")
    run("gcc", *options, "-xc", "-", "-o", path, stdin=source)
    script.unlink()


def run(*command: str | Path, stdin: str | None = None) -> str:
    return subprocess.run(command, input=stdin, text=True, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    main()
