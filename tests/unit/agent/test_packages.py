"""The agent reads a stranger's zip within bounds."""

import zipfile
from pathlib import Path

import pytest

from koinon.agent import packages
from koinon.agent.policy import Refusal


def write(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_lines_of_python_are_counted(tmp_path: Path) -> None:
    files = {"model.py": "a = 1\nb = 2\n", "risk/net.py": "a = 1\nb = 2", "empty.py": "", "data.csv": "1\n2\n"}
    assert packages.lines(write(tmp_path / "p.zip", files)) == {"model.py": 2, "risk/net.py": 2, "empty.py": 0}


def test_too_many_entries_are_refused_before_they_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.zip", {f"{index}.py": "" for index in range(5)})
    monkeypatch.setattr(packages, "MAX_FILES", 4)
    monkeypatch.setattr(zipfile, "ZipFile", None)  # calling it would be another error
    with pytest.raises(Refusal, match="5 entries"):
        packages.lines(path)


def test_a_directory_larger_than_its_number_of_entries_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "p.zip", {f"{index}.py": "" for index in range(5)})
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\x05\x06")
    content[at + 8 : at + 12] = bytes([1, 0, 1, 0])
    path.write_bytes(content)
    monkeypatch.setattr(packages, "MAX_FILES", 4)
    with pytest.raises(Refusal, match="more than 4 files"):
        packages.lines(path)
    monkeypatch.setattr(packages, "_MAX_DIRECTORY", 100)
    with pytest.raises(Refusal, match="1 entries"):
        packages.lines(path)


def test_damage_is_a_refusal(tmp_path: Path) -> None:
    path = write(tmp_path / "p.zip", {"model.py": "x = 1\n" * 100})
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[:-1], whole[:40] + b"\xff" * 8 + whole[48:]):
        path.write_bytes(content)
        with pytest.raises(Refusal):
            packages.lines(path)
