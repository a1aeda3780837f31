"""What `koinon.local` refuses before it starts anything, and what `import koinon` costs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import koinon
from koinon.client import commands
from koinon.domain import errors


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (2, "at least 3 sites"),
        (0, "at least 3 sites"),
        (9, "has 4 hospitals"),
        ({"lyon": "nowhere.csv"}, "no such file"),
    ],
)
def test_federations_that_cannot_be(sites: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(errors.KoinonError, match=message):
        koinon.local(sites, folder=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_importing_koinon_imports_nothing_heavy() -> None:
    code = (
        "import sys, koinon; koinon.Model; sys.exit(bool({'pydantic', 'httpx', 'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_all_exports_exist() -> None:
    for name in koinon.__all__:
        assert getattr(koinon, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(koinon, "nothing")  # noqa: B009


def test_a_commands_error_comes_back_as_it_was() -> None:
    with pytest.raises(errors.NotFound, match="no such file") as caught:
        commands.run("contract", "infer", "nowhere.csv")
    assert caught.value.where == "nowhere.csv"
