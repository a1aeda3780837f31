"""A local federation end to end: real hub, real agents, real Ray, through HTTP, SDK and CLI."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import koinon
from koinon.cli import scaffold
from koinon.client import settings
from koinon.client.local import Local
from koinon.client.projects import Project
from koinon.client.runs import Run
from koinon.client.supervisor import descendants
from koinon.domain import errors
from tests.e2e import leftovers

SITES = 3


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    before = leftovers.folders()
    with koinon.local(SITES, folder=tmp_path_factory.mktemp("federation")) as found:
        yield found
    assert leftovers.processes() == []
    assert leftovers.folders() <= before


@pytest.fixture(scope="module")
def project(federation: Local) -> Project:
    return federation.create_project("heart")


@pytest.fixture(scope="module")
def run(project: Project) -> Run:
    return project.submit(rounds=3).wait(300)


def _cli(federation: Local, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command, logged in as the federation's researcher."""
    config = federation.folder / "client"
    login = settings.Login(federation.connection.url, (federation.folder / "researcher.token").read_text().strip())
    settings.save_login(login, config / "login.json")
    environment = {**os.environ, "KOINON_CONFIG": str(config), "KOINON_KEY": str(federation.identity)}
    command = [sys.executable, "-m", "koinon.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _json(federation: Local, *words: str) -> Any:
    done = _cli(federation, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_round_is_a_step_with_its_time_and_its_sites(federation: Local, run: Run) -> None:
    steps = run.steps()
    assert [step.kind for step in steps] == ["init", "train", "train", "train", "evaluate"]
    assert [step.model for step in steps] == [-1, 0, 1, 2, 3]
    for step in steps[1:]:
        assert step.sites == tuple(sorted(federation.data))
        assert step.missing == ()
        assert 0 < step.metrics["accuracy"] < 1
        assert sum(step.seconds.values()) == pytest.approx(step.total_seconds, abs=0.1)
        assert set(step.site_seconds) == set(federation.data)
    assert steps[-1].metrics["loss"] < steps[1].metrics["loss"]


def test_the_result_opens_with_the_researchers_key_alone(federation: Local, run: Run, tmp_path: Path) -> None:
    weights = run.weights()
    assert {name: array.shape for name, array in weights.items()} == {"weight": (1, 13), "bias": (1,)}
    module = run.model()
    assert_allclose(module.weight.detach().numpy(), weights["weight"])
    stranger = tmp_path / "stranger.age"
    _cli(federation, "key", "new", "--out", str(stranger))
    with pytest.raises(errors.Untrusted, match="not sealed to"):
        run.download(tmp_path / "never.safetensors", key=stranger)
    assert not (tmp_path / "never.safetensors").exists()


def test_table_has_one_row_a_model(run: Run) -> None:
    table = run.table()
    assert list(table["model"]) == [0, 1, 2, 3]
    assert np.isfinite(table["accuracy"]).all()


def test_a_repeated_submission_is_the_same_run(project: Project, run: Run) -> None:
    again = project.submit(rounds=3)
    assert again.id == run.id
    assert not again.created_now


def test_a_wrong_parameter_is_named_before_anything_is_sent(project: Project) -> None:
    with pytest.raises(errors.Invalid, match="Did you mean"):
        project.submit(round=3)
    with pytest.raises(errors.Invalid) as caught:
        project.submit(rounds=10**9)
    assert caught.value.where == "parameters.rounds"


def test_creating_the_project_again_gives_the_same_one(federation: Local, project: Project) -> None:
    assert federation.create_project("heart", grant=False).hash == project.hash
    with pytest.raises(errors.Conflict, match="another manifest"):
        federation.create_project("heart", grant=False, purpose="Something else.")


def test_the_command_shows_what_the_sdk_shows(federation: Local, run: Run, tmp_path: Path) -> None:
    assert [row["id"] for row in _json(federation, "run", "list")] == [run.id]
    shown = _json(federation, "run", "show", run.id[:5], "--timing")
    assert (shown["state"], len(shown["rounds"])) == ("completed", 5)
    assert "waited for" in _cli(federation, "run", "show", run.id, "--timing").stdout
    watched = _cli(federation, "run", "watch", run.id, "--json")
    assert [json.loads(line)["round"] for line in watched.stdout.splitlines()] == [0, 1, 2, 3, 4]
    target = tmp_path / "m.safetensors"
    _json(federation, "run", "download", run.id, "--out", str(target))
    assert target.stat().st_size > 4 * 14
    assert {row["name"] for row in _json(federation, "site", "show")} == set(federation.data)
    assert _json(federation, "project", "show", "heart")["grants"]["cleveland"]["state"] == "granted"


def test_a_deadline_ends_with_4_and_the_run_goes_on_until_it_is_cancelled(federation: Local, project: Project) -> None:
    long = project.submit(rounds=900)
    done = _cli(federation, "run", "watch", long.id, "--timeout", "1")
    assert done.returncode == 4
    assert f"koinon run watch {long.id}" in done.stderr
    assert long.refresh().state in ("queued", "running")
    assert _json(federation, "run", "cancel", long.id)["state"] == "cancelled"
    assert _cli(federation, "run", "watch", long.id).returncode == 1
    assert _cli(federation, "run", "delete", long.id, "--yes").returncode == 0
    with pytest.raises(errors.NotFound):
        federation.run(long.id)


def test_no_process_carries_a_secret_in_its_arguments(federation: Local, run: Run) -> None:
    """Arguments are public on a machine: the researcher's token and key, and every site's keys, come in files."""
    secrets = [(federation.folder / "researcher.token").read_text().strip()]
    secrets += [line for line in federation.identity.read_text().splitlines() if line.startswith("AGE-SECRET-KEY")]
    for site in federation.data:
        for name in ("root/root.key", "agent/signing.key"):
            secrets.append((federation.site_folder(site) / name).read_text().strip())
    pids = descendants(os.getpid())
    assert len(pids) > SITES
    for pid in pids:
        shown = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        assert not [secret for secret in secrets if secret in shown]


def test_runs_are_compared_by_what_differs(federation: Local, project: Project, run: Run) -> None:
    other = project.submit(rounds=2, strategy="fedyogi", learning_rate=0.003162, server_learning_rate=0.01).wait(300)
    rows = _json(federation, "run", "compare", run.id, other.id)
    assert [row["strategy"] for row in rows] == ["fedavg", "fedyogi"]
    assert "batch_size" not in rows[0]
    assert all(0 < row["accuracy"] < 1 for row in rows)


def test_a_researchers_own_package_trains_and_opens_as_its_module(federation: Local, tmp_path: Path) -> None:
    folder = tmp_path / "risk"
    scaffold.write(folder)
    own = federation.create_project("risk", code=folder, contract=folder / "contract.yaml")
    finished = own.submit(rounds=1, learning_rate=0.01).wait(300)
    assert finished.state == "completed"
    assert finished.model().in_features == 13


def test_a_revoked_project_stops_and_is_told_as_a_refusal(federation: Local, project: Project) -> None:
    """Three hospitals are the fewest: when one revokes, the running run ends, and the command says 3."""
    long = project.submit(rounds=901)
    for step in long.watch(120):
        if step.kind == "train":
            break
    federation.revoke(project, "cleveland")
    done = _cli(federation, "run", "watch", long.id, "--timeout", "60")
    assert done.returncode == 3, done.stderr
    assert "cleveland" in done.stderr
    with pytest.raises(errors.Refused, match="revoked"):
        project.wait_for_grants(30, say=lambda _: None)
