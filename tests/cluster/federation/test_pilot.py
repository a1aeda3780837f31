"""The whole job where hospitals live: Helm installs, kubectl grants, HTTP submits, a Ray cluster per hospital trains.

The model is that of the embedded federation, to the last bit.
"""

import base64
import hashlib
import json
import time
from pathlib import Path

import pytest

from koinon.client.local import local
from koinon.client.projects import Project
from koinon.data import heart
from tests.cluster import kubectl
from tests.cluster.federation.conftest import OPTIONS
from tests.cluster.federation.league import SITES, League

ROUNDS, SEED = 15, 42


@pytest.fixture(scope="module")
def model(federation: League, project: Project) -> bytes:
    """The heart pilot's final model from the cluster."""
    began = time.monotonic()
    run = project.submit(rounds=ROUNDS, strategy="fedavg", seed=SEED)
    steps = list(run.watch(1_500))
    federation.seconds["pilot, 15 rounds"] = round(time.monotonic() - began, 1)
    assert len(steps) >= ROUNDS
    target = federation.folder / "model.safetensors"
    run.download(target)
    return target.read_bytes()


@pytest.mark.timeout(2_400)
def test_the_pilot_is_bit_identical_to_the_embedded_run(federation: League, model: bytes, tmp_path: Path) -> None:
    with local({site: heart.HOSPITALS[site] for site in SITES}, folder=tmp_path / "embedded") as embedded:
        run = embedded.create_project("heart", **OPTIONS).submit(rounds=ROUNDS, strategy="fedavg", seed=SEED)
        for _ in run.watch(1_500):
            pass
        run.download(tmp_path / "model.safetensors")
    print(json.dumps(federation.seconds, indent=1))
    print("sha256", hashlib.sha256(model).hexdigest())
    assert (tmp_path / "model.safetensors").read_bytes() == model


@pytest.mark.timeout(600)
def test_submit_to_first_step_on_a_warm_grant(federation: League, project: Project, model: bytes) -> None:
    """From the submission to the end of the first hospital's first local steps."""
    began = time.monotonic()
    run = project.submit(rounds=1, strategy="fedavg", seed=7)
    first = next(iter(run.watch(300)))
    seconds = time.monotonic() - began
    print(f"submit to the end of round 1: {seconds:.1f} s; parts of it: {first.seconds}")
    for _ in run.watch(300):
        pass
    assert seconds < 30


def test_minio_holds_the_artifacts_and_nothing_readable(federation: League, model: bytes) -> None:
    """Every object that a run names is in MinIO's volume; the model's bytes are in none of them."""
    packed = kubectl.execute(federation.hub_namespace, "hub-koinon-hub-minio-0", "sh", "-c", "tar -cf - /data | base64")
    volume = base64.b64decode(packed)
    stored = [item["name"] for run in federation.hub.runs() for item in run.artifacts()]
    assert len(stored) > ROUNDS
    assert [name for name in stored if name.encode() not in volume] == []
    assert model[-56:] not in volume  # the fourteen floats behind the header


def test_the_plugin_shows_it_all_on_one_screen(federation: League, project: Project, model: bytes) -> None:
    screen = federation.plugin("status", "-n", federation.home("cleveland"))
    print(screen)
    assert "heart-" in screen
    assert "Ready" in screen
    findings = json.loads(federation.plugin("doctor", "-n", federation.home("cleveland"), "--json"))
    assert [finding for finding in findings if finding["state"] == "bad"] == []


@pytest.mark.timeout(600)
def test_revocation_kills_in_seconds_and_the_others_go_on(federation: League, project: Project, model: bytes) -> None:
    """Below its minimum of three the run that is going on stops, and says why."""
    site = "zurich"
    run = project.submit(rounds=200, strategy="fedavg", seed=9)
    next(iter(run.watch(300)))
    key = str(federation.root_key(site))
    told = json.loads(
        federation.plugin("revoke", "heart", "-n", federation.home(site), "--root-key", key, "--yes", "--json")
    )
    print(f"from revoke to the last pod gone: {told['seconds']} s")
    assert told["gone"]
    mark = f"koinon.dev/project={project.hash[:12]}"
    assert kubectl.find("pods,services,rayclusters.ray.io,networkpolicies", federation.work(site), mark) == []
    with pytest.raises(Exception, match="zurich"):
        for _ in run.watch(300):
            pass
