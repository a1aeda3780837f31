"""`koinon demo` as a newcomer runs it: the published accuracy, the report, and nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import leftovers

PUBLISHED = 0.6915  # seed 42, FedAvg, aggregates weighted by training rows
# What `make` exports, or whoever runs the tests: a newcomer has none of it.
_OTHERS = {"STRATEGY", "ROUNDS", "SEED", "SITES_DOWN", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}


def _demo(out: Path, *words: str) -> dict[str, Any]:
    """Runs it in a folder and with a home of its own, and sees that it writes nothing but `out`."""
    here, home = out.parent / "here", out.parent / "home"
    here.mkdir()
    home.mkdir()
    before = leftovers.folders()
    command = [sys.executable, "-m", "koinon.cli", "demo", "--out", str(out), "--json", *words]
    environment = {name: value for name, value in os.environ.items() if name not in _OTHERS} | {"HOME": str(home)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, cwd=here, env=environment)
    assert done.returncode == 0, done.stderr
    assert leftovers.processes() == []
    assert leftovers.folders() <= before
    assert list(here.iterdir()) == []
    assert list(home.iterdir()) == []
    report: dict[str, Any] = json.loads(done.stdout)
    assert report == json.loads((out / "report.json").read_text())
    return report


def test_the_published_accuracy_with_protection_on(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    report = _demo(out)
    assert report["metric"]["federated"] == pytest.approx(PUBLISHED, abs=0.01)
    assert set(report["metric"]["alone"]) == {"cleveland", "budapest", "long-beach", "zurich"}
    assert len(report["rounds"]) == 15
    assert set(report) == {"metric", "rounds", "round_overhead_median_s", "model_sha256", "artifacts"}
    for row in report["rounds"]:
        assert set(row) == {"metric", "seconds", "bytes", "survivors"}
        assert len(row["survivors"]) == 4
    assert report["rounds"][-1]["metric"] == report["metric"]["federated"]
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "src=" not in page
    assert "@import" not in page
    assert "CC BY 4.0" in page
    assert sorted(p.name for p in out.iterdir()) == ["model.safetensors", "report.html", "report.json"]


def test_a_hospital_without_power_costs_the_run_only_its_own_part(tmp_path: Path) -> None:
    report = _demo(tmp_path / "demo", "--sites-down", "1", "--rounds", "3", "--strategy", "fedyogi", "--seed", "43")
    assert [len(row["survivors"]) for row in report["rounds"]] == [3, 3, 3]
    assert all("zurich" not in row["survivors"] for row in report["rounds"])
