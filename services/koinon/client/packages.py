"""A researcher's code as it is sent: one zip file whose bytes depend on nothing but the files in it."""

import hashlib
import io
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from koinon.client import commands
from koinon.domain import errors
from koinon.domain.contract import Contract
from koinon.domain.layout import Layout, Tensor
from koinon.domain.manifest import MAX_PACKAGE

ENTRY = "model.py"
_TABLES = {".csv", ".tsv", ".xls", ".xlsx", ".parquet", ".feather", ".sas7bdat", ".sav", ".dta"}


@dataclass(frozen=True)
class Package:
    sha256: str
    content: bytes = field(repr=False)
    files: tuple[str, ...] = ()


def pack(folder: Path) -> Package:
    """`folder` as a package. Hidden files, caches, tests and tables of data stay behind.

    Raises Invalid without a model.py, TooLarge above 100 MiB.
    """
    if not (folder / ENTRY).is_file():
        raise errors.Invalid(
            f"There is no {ENTRY} in this folder.", where=str(folder), todo="koinon init NAME writes one"
        )
    files = sorted(p for p in folder.rglob("*") if p.is_file() and _belongs(p.relative_to(folder)))
    if sum(path.stat().st_size for path in files) > MAX_PACKAGE:
        raise errors.TooLarge(
            f"A package holds at most {MAX_PACKAGE >> 20} MiB.",
            where=str(folder),
            todo="Move data and weights elsewhere.",
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    content = out.getvalue()
    names = tuple(path.relative_to(folder).as_posix() for path in files)
    return Package(hashlib.sha256(content).hexdigest(), content, names)


def _belongs(path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    test = path.name.startswith("test_") or path.parts[0] == "tests"
    return not hidden and not test and path.suffix.lower() not in _TABLES | {".pyc"}


def layout(folder: Path, contract: Contract) -> Layout:
    """Names and shapes of the tensors of the model in `folder`, which `koinon check` tries in a process of its own.

    A process of its own since the SDK needs no torch, and since the code is not the SDK's. Raises what the check says.
    """
    with tempfile.TemporaryDirectory(prefix="koinon-") as scratch:
        agreed = Path(scratch, "contract.json")  # JSON is YAML
        agreed.write_bytes(contract.encode())
        report = commands.run("check", str(folder), "--contract", str(agreed))
    return tuple(Tensor.of({"name": name, "shape": shape}) for name, shape in report["layout"])
