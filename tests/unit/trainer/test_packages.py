"""Packages of research code: what is loaded, and what is not."""

import io
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from koinon.trainer import packages
from koinon.trainer.errors import TrainerError

MODEL = """
import koinon
from helper import WIDTH

class Base(koinon.Model):
    def build(self, inputs):
        return inputs * WIDTH

class Risk(Base):
    pass
"""


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def zipped(tmp_path: Path, *members: tuple[str | zipfile.ZipInfo, str]) -> Path:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members:
            archive.writestr(name, text)
    path = tmp_path / "package"
    path.write_bytes(content.getvalue())
    return path


def load(path: Path, tmp_path: Path) -> packages.Loaded:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return packages.load(path, scratch)


def test_a_zip_and_a_folder_give_the_same_learner(tmp_path: Path) -> None:
    found = load(zipped(tmp_path, ("model.py", MODEL), ("helper.py", "WIDTH = 3")), tmp_path)
    assert found.learner.__name__ == "Risk"
    assert found.files == {"model.py", "helper.py"}
    assert found.learner().build(2) == 6
    again = packages.load(found.root, tmp_path / "unused")
    assert again.learner.__name__ == "Risk"
    assert not list(found.root.rglob("*.pyc"))


@pytest.mark.parametrize(
    "members",
    [
        [("other.py", "")],
        [("folder/model.py", MODEL)],
        [("model.py", "import koinon\nModel = koinon.Model")],
        [("model.py", "import koinon\nclass A(koinon.Model): pass\nclass B(koinon.Model): pass")],
        [("../model.py", MODEL)],
        [("/tmp/model.py", MODEL)],
    ],
)
def test_what_is_no_package(tmp_path: Path, members: list[tuple[str, str]]) -> None:
    with pytest.raises(TrainerError, match="package_invalid"):
        load(zipped(tmp_path, *members), tmp_path)
    assert not (tmp_path / "model.py").exists()


def test_a_link_and_a_bomb_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo("model.py")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(TrainerError, match="package_invalid"):
        load(zipped(tmp_path, (link, "/etc/passwd")), tmp_path)
    monkeypatch.setattr(packages, "MAX_BYTES", 1_000)
    with pytest.raises(TrainerError, match="package_invalid"):
        packages.load(zipped(tmp_path, ("model.py", MODEL), ("data.bin", "0" * 1_000)), tmp_path)


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "package").write_bytes(b"PK nothing")
    with pytest.raises(TrainerError, match="package_invalid"):
        load(tmp_path / "package", tmp_path)


@pytest.mark.parametrize(
    ("code", "error", "place"),
    [
        ("import koinon\nx = 1 / 0", "ZeroDivisionError", "model.py:2"),
        ("import koinon\nclass :", "SyntaxError", "model.py:2"),
        ("raise SystemExit(63)", "SystemExit", "model.py:1"),
        ("import no_such_library", "ModuleNotFoundError", "model.py:1"),
    ],
)
def test_code_that_does_not_import(tmp_path: Path, code: str, error: str, place: str) -> None:
    with pytest.raises(TrainerError) as caught:
        load(zipped(tmp_path, ("model.py", code)), tmp_path)
    assert (caught.value.code, caught.value.error, caught.value.place) == ("learner_error", error, place)
