"""Packages: the same folder gives the same bytes; data and tests stay behind."""

import os
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from koinon.client import packages
from koinon.domain import errors


def _folder(path: Path) -> Path:
    (path / "nets").mkdir(parents=True)
    (path / "model.py").write_text("x = 1\n")
    (path / "nets" / "small.py").write_text("y = 2\n")
    for name in ("test_model.py", "patients.csv", ".secret", "old.pyc", "notes.PARQUET"):
        (path / name).write_text("no")
    (path / "__pycache__").mkdir()
    (path / "__pycache__" / "model.cpython-311.pyc").write_text("no")
    return path


def test_only_code_is_sent(tmp_path: Path) -> None:
    package = packages.pack(_folder(tmp_path / "risk"))
    assert package.files == ("model.py", "nets/small.py")
    with zipfile.ZipFile(BytesIO(package.content)) as archive:
        assert sorted(archive.namelist()) == ["model.py", "nets/small.py"]


def test_times_and_modes_of_files_change_nothing(tmp_path: Path) -> None:
    first, second = _folder(tmp_path / "a"), _folder(tmp_path / "b")
    os.utime(second / "model.py", (0, 0))
    (second / "model.py").chmod(0o600)
    assert packages.pack(first).content == packages.pack(second).content


def test_a_changed_byte_changes_the_hash(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "risk")
    before = packages.pack(folder).sha256
    (folder / "nets" / "small.py").write_text("y = 3\n")
    assert packages.pack(folder).sha256 != before


def test_without_a_model_nothing_is_sent(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match=r"no model\.py"):
        packages.pack(tmp_path)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_PACKAGE", 4)
    with pytest.raises(errors.TooLarge):
        packages.pack(_folder(tmp_path / "risk"))
