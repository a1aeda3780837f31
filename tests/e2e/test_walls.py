"""Research code that looks for keys where they really lie, in a federation as `koinon up` lays it out: nothing opens.

It fails, not skips, without namespaces; KOINON_NO_WALLS=1 says that this machine is known to have none.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import koinon
from koinon.cli import scaffold
from koinon.client import commands
from koinon.client.local import Local

SITES = 4
BUILD = Path(__file__).parents[2] / "build"
pytestmark = pytest.mark.skipif(os.environ.get("KOINON_NO_WALLS") == "1", reason="KOINON_NO_WALLS=1: no namespaces")

# At the researcher's own machine build() runs too, for the layout, and there it may open them. In a hospital's Ray it
# leaves MARK in the first weights: so it did look; and raises if anything opened: so the hospital would be missing.
MARK = 5.0
_THIEF = '''"""Looks for keys."""

import os

import torch

import koinon

PATHS = {paths!r}


class Thief(koinon.Model):
    def build(self, inputs):
        opened = []
        for path in PATHS:
            for way in (path, "/proc/1/root" + path, f"/proc/{{os.getppid()}}/root" + path, f"/proc/self/root" + path):
                try:
                    with open(way, "rb") as file:
                        opened.append((way, len(file.read())))
                except OSError:
                    continue
        network = torch.nn.Linear(inputs, 1)
        if "RAY_AUTH_MODE" in os.environ:
            if opened:
                raise RuntimeError(f"opened {{opened}}")
            torch.nn.init.constant_(network.bias, {mark!r})
        return network

    def loss(self, model, x, y):
        return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
'''


_HOARDER = '''"""Writes 200 MiB."""

import os
import pathlib
import tempfile
import time

import torch

import koinon


class Hoarder(koinon.Model):
    def build(self, inputs):
        return torch.nn.Linear(inputs, 1)

    def loss(self, model, x, y):
        file = pathlib.Path(tempfile.gettempdir(), "hoard")
        if "RAY_AUTH_MODE" in os.environ and not file.exists():
            file.write_bytes(bytes(200 * 2**20))
            time.sleep(5)
        return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
'''


@pytest.fixture(scope="module")
def federation() -> Iterator[Local]:
    """In the checkout, as `make up` does, not in /tmp: what lies around the code must not show either."""
    folder = BUILD / f"walls-{os.getpid()}"
    try:
        with koinon.local(SITES, folder=folder) as found:
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _code(folder: Path, model: str) -> Path:
    scaffold.write(folder)
    (folder / "model.py").write_text(model)
    return folder


def test_a_package_opens_no_key_of_its_site_a_sibling_the_hub_or_the_researcher(
    federation: Local, tmp_path: Path
) -> None:
    folder = federation.folder
    own, sibling = (federation.site_folder(site) for site in list(federation.data)[:2])
    keys = [
        own / "root" / "root.key", own / "agent" / "signing.key", own / "agent" / "recipient.key",
        sibling / "root" / "root.key", sibling / "agent" / "signing.key",
        *sorted((folder / "hub" / "keys").iterdir()), folder / "researcher.token", folder / "identity.age",
        *sorted((BUILD / "up").glob("sites/*/root/root.key")),
    ]  # fmt: skip
    assert [path for path in keys if not path.is_file()] == []
    code = _code(tmp_path / "thief", _THIEF.format(paths=[str(path) for path in keys], mark=MARK))
    project = federation.create_project("thief", code=code, contract=code / "contract.yaml")
    finished = project.submit(rounds=1, learning_rate=1e-6).wait(400)
    assert [step.sites for step in finished.steps()[1:]] == [tuple(sorted(federation.data))] * 2
    for site in federation.data:
        text = (federation.site_folder(site) / "log" / "agent.log").read_text()
        assert '"missing_walls": {}' in text
        assert "opened [" not in text
    assert finished.weights()["bias"].item() == pytest.approx(MARK, abs=1e-3)


def test_code_that_takes_more_disk_than_granted_costs_the_run_that_hospital_only(
    federation: Local, tmp_path: Path
) -> None:
    code = _code(tmp_path / "hoarder", _HOARDER)
    project = federation.create_project("hoarder", code=code, contract=code / "contract.yaml", grant=False)
    *others, tight = federation.data
    federation.grant(project, others)
    commands.run(
        "grant", project.hash, "--site", str(federation.site_folder(tight)), "--dataset", federation.dataset,
        "--vouch-all", "--yes", "--disk", "0.1",
    )  # fmt: skip
    project.wait_for_grants(120)
    trained = project.submit(rounds=1).wait(400).steps()[1]
    assert trained.sites == tuple(sorted(others))
    assert "out_of_disk" in (federation.site_folder(tight) / "log" / "agent.log").read_text()
