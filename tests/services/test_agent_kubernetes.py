"""An agent process in its Kubernetes form: all of it mounted, the hub over HTTPS, the trainer in a real Ray cluster."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from koinon.agent import setup
from koinon.client import commands
from tests.services import heads
from tests.services.agent_pods import Pod
from tests.services.authority import Authority
from tests.services.hubs import wait_for
from tests.services.mounts import Mount
from tests.services.served import Served, pair

METRICS = (
    "info", "connected", "hub_contact_age_seconds", "clock_offset_seconds", "loop_age_seconds", "disk_free_bytes",
    "certificate_expiry_timestamp_seconds", "pending_projects", "granted_projects", "trainers", "rounds_total",
    "phases_total", "phase_seconds_bucket", "hub_bytes_total", "trainer_starts_total", "trainer_losses_total",
)  # fmt: skip


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def hub(tmp_path: Path, authority: Authority) -> Iterator[Served]:
    """Not started yet."""
    secret = Mount(tmp_path / "tls", pair(authority, tmp_path)).folder
    made = Served(tmp_path / "hub", "--tls-cert", str(secret / "tls.crt"), "--tls-key", str(secret / "tls.key"))
    yield made
    if made.running:
        made.stop()


@pytest.fixture
def pod(tmp_path: Path, hub: Served, authority: Authority) -> Iterator[Pod]:
    made = Pod(tmp_path / "pod", hub, authority)
    yield made
    made.stop()


def test_it_enrols_itself_once_the_hub_and_the_invitation_are_there(pod: Pod, hub: Served) -> None:
    pod.start()
    said = pod.get("/readyz")
    assert said.status_code == 503
    wait_for(lambda: "does not answer" in pod.get("/readyz").json()["why"], 20)
    assert (pod.status()["connected"], pod.status()["last_contact"]) == (False, None)
    assert "does not answer" in pod.status()["trouble"]
    assert "koinon_agent_hub_contact_age_seconds +Inf" in pod.get("/metrics").text
    hub.start()
    wait_for(lambda: pod.events("not-enrolled"), 30, "the missing invitation in the log")
    assert "invitation" in pod.events("not-enrolled")[0]["error"]
    assert "is enrolled here" in pod.status()["trouble"]  # by which kubectl koinon doctor knows what is missing
    pod.invite()
    pod.ready(60)
    (enrolled,) = pod.events("enrolled")
    assert enrolled["fingerprint"] == pod.status()["fingerprint"]
    with hub.store() as store:
        assert store.site("lyon").root == pod.root.public
    pod.stop()
    pod.start()  # with an invitation that is used up
    pod.ready()
    assert len(pod.events("enrolled")) == 1


def test_an_agent_that_lost_its_volume_enrols_with_the_used_invitation(pod: Pod, hub: Served) -> None:
    hub.start()
    pod.invite()
    pod.start()
    pod.ready()
    pod.stop()
    (pod.path / "state").rename(pod.path / "lost")
    with hub.store() as store:
        before = store.site("lyon")
    pod.start()
    pod.ready()
    with hub.store() as store:
        assert store.site("lyon").certificate == before.certificate


def test_renewed_keys_are_shown_to_the_hub(pod: Pod, hub: Served) -> None:
    hub.start()
    pod.invite()
    pod.start()
    pod.ready()
    setup.renew_keys(pod.offline, now=time.time())
    pod.keys.write(pod.made_keys())
    pod.stop()
    pod.invitation.write({})
    pod.start()
    pod.ready()
    assert pod.events("certificate-renewed")[0]["epoch"] == 2
    assert pod.status()["epoch"] == 2
    with hub.store() as store:
        assert store.site("lyon").certificate.epoch == 2


def test_what_the_status_server_shows_and_what_it_does_not(pod: Pod, hub: Served) -> None:
    hub.start()
    pod.invite()
    pod.start()
    pod.ready()
    manifest = pod.project()
    pending = {"hash": manifest.digest(), "name": manifest.name}
    wait_for(lambda: pod.status()["pending"] == [pending], 20, "the pending project")
    for asked in (manifest.digest(), manifest.name):
        assert pod.get(f"/v1/manifests/{asked}").content == manifest.encode()
    assert pod.get("/v1/manifests/unknown").status_code == 404
    assert pod.get("/v1/manifests/..%2F..%2Fsite.yaml").status_code == 404
    assert pod.get("/").status_code == 404
    assert httpx.post(f"http://127.0.0.1:{pod.port}/v1/status", trust_env=False).status_code == 501
    text = pod.get("/metrics").text
    for name in METRICS:
        assert f"\nkoinon_agent_{name}" in text, name
    assert "koinon_agent_pending_projects 1.0" in text
    pod.consents.write(pod.granted(manifest))
    wait_for(lambda: pod.status()["granted"], 10, "the grant")
    (granted,) = pod.status()["granted"]
    assert (granted["hash"], granted["dataset"], granted["refused"]) == (manifest.digest(), "heart", None)
    assert pod.status()["pending"] == []
    with hub.store() as store:
        wait_for(lambda: store.grants(manifest.digest()), 20, "the grant at the hub")
    wait_for(lambda: pod.events("not-warm"), 20, "the missing secret in the log")
    assert pod.status()["trainers"] == [{"project": manifest.digest(), "state": "away"}]
    everything = pod.get("/v1/status").text + pod.get("/metrics").text + (pod.path / "stdout").read_text()
    for name, content in pod.made_keys().items():
        if name.endswith(".key"):
            assert content.decode().split()[-1] not in everything
    second = subprocess.run(
        [*commands.KOINON, "site", "serve", str(pod.path / "state"), "--settings",
         str(pod.settings.folder / "site.yaml")], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 1
    assert "Another agent" in second.stderr


def test_a_grant_warms_the_trainer_and_a_revocation_ends_it(tmp_path: Path, hub: Served, authority: Authority) -> None:
    hub.start()
    pod = Pod(tmp_path / "pod", hub, authority)
    pod.invite()
    pod.start()
    pod.ready()
    pod.stop()
    manifest = pod.project()
    with heads.running(manifest.digest()) as head:
        given = yaml.safe_load((pod.settings.folder / "site.yaml").read_text())
        given["kubernetes"] |= {name: value for name, value in head.given.model_dump().items()
                                if name in ("head", "jobs_port", "trainer_port", "ray_secret")}  # fmt: skip
        pod.settings.write({"site.yaml": yaml.safe_dump(given).encode()})
        pod.start()
        try:
            pod.ready()
            wait_for(lambda: pod.status()["pending"], 20, "the project")
            began = time.monotonic()
            pod.consents.write(pod.granted(manifest))
            state = [{"project": manifest.digest(), "state": "ready"}]
            wait_for(lambda: pod.status()["trainers"] == state, 120, "a warm trainer")
            warm = time.monotonic() - began
            (job,) = head.states()
            pod.stop()
            assert head.states() == {job: "RUNNING"}  # an agent that ends leaves it
            pod.start()
            pod.ready()
            began = time.monotonic()
            wait_for(lambda: pod.status()["trainers"] == state, 60, "the trainer found again")
            found = time.monotonic() - began
            assert head.states() == {job: "RUNNING"}
            began = time.monotonic()
            pod.consents.write(pod.granted(manifest) | pod.revoked(manifest))
            wait_for(lambda: head.states() != {job: "RUNNING"}, 30, "the end of the job")
            ended = time.monotonic() - began
            wait_for(lambda: not head.named("ray::Actor") and not head.named("koinon.trainer"), 20, "no process of it")
            assert pod.status()["trainers"] == []
            assert pod.status()["granted"][0]["refused"] == "revoked"
            print(f"\ngrant to warm {warm:.1f} s, found again {found:.1f} s, revocation to the job's end {ended:.2f} s")
        finally:
            pod.stop()


def test_doctor_knows_the_form(pod: Pod, hub: Served) -> None:
    hub.start()
    pod.invite()
    file = str(pod.settings.folder / "site.yaml")
    done = subprocess.run(
        [*commands.KOINON, "site", "doctor", str(pod.path), "--settings", file, "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = {row["what"]: row["state"] for row in json.loads(done.stdout)}
    assert found["hub"] == "good", done.stdout
    assert found["agent's signing key"] == "good"
    assert not [what for what in found if what.startswith(("wall", "data"))]
    assert done.returncode == 0
