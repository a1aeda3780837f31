"""An agent process in its Kubernetes form: all of it mounted, the hub over HTTPS, the trainer in a real Ray cluster."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from koinon.agent import link, setup
from koinon.agent.config import Folder
from koinon.artifacts import keyfiles
from koinon.client import commands
from koinon.domain.grant import Grant, Revocation
from koinon.domain.manifest import Manifest
from tests.services import heads, ports
from tests.services.authority import Authority
from tests.services.hospitals import LATER, Hospital
from tests.services.hubs import wait_for
from tests.services.mounts import Mount
from tests.services.served import Served, pair
from tests.services.trainers import CONTRACT, HEART
from tests.unit.domain import manifests

OTHERS = ("lille", "nice")
METRICS = (
    "info", "connected", "hub_contact_age_seconds", "clock_offset_seconds", "loop_age_seconds", "disk_free_bytes",
    "certificate_expiry_timestamp_seconds", "pending_projects", "granted_projects", "trainers", "rounds_total",
    "phases_total", "phase_seconds_bucket", "hub_bytes_total", "trainer_starts_total", "trainer_losses_total",
)  # fmt: skip


class Pod:
    """A hospital's agent as the chart lays it out; `start` and `stop` keep the volume."""

    def __init__(self, path: Path, hub: Served, authority: Authority) -> None:
        self.path, self.hub, self.authority = path, hub, authority.certificate
        self.others = [Hospital(name, "") for name in OTHERS]
        self.offline = path / "offline"  # the machine of the hospital's IT
        setup.make_keys(self.offline, name="lyon", now=time.time())
        self.root = keyfiles.read_signing_key(Folder(self.offline).root_key)
        self.keys = Mount(path / "keys", self.made_keys(), mode=0o600)
        self.consents = Mount(path / "consents")
        self.invitation = Mount(path / "invitation")
        self.port = ports.free()
        given: dict[str, Any] = {"work_namespace": "lyon-work", "ray_secret": str(path / "absent"), "jobs_port": 9}
        given |= {"keys": str(self.keys.folder), "consents": str(self.consents.folder),
                  "invitation": str(self.invitation.folder / "token"), "status": f"127.0.0.1:{self.port}"}  # fmt: skip
        settings = {"name": "lyon", "hub": hub.url.replace("http:", "https:"), "hub_ca": str(authority.certificate),
                    "datasets": {"heart": str(HEART / "cleveland.csv")}, "kubernetes": given}  # fmt: skip
        self.settings = Mount(path / "site", {"site.yaml": yaml.safe_dump(settings).encode()})
        self.process: subprocess.Popen[bytes] | None = None

    def made_keys(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Folder(self.offline).agent.iterdir()}

    def start(self) -> None:
        file = self.settings.folder / "site.yaml"
        command = [*commands.KOINON, "site", "serve", str(self.path / "state"), "--settings", str(file)]
        with (self.path / "stdout").open("ab") as out, (self.path / "stderr").open("ab") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err)
        wait_for(self.shown, 30, "the status server")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(30) == 0, (self.path / "stderr").read_text()
            self.process = None

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=10)

    def shown(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.path / "stderr").read_text()
        try:
            return self.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/v1/status").json()
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.path / "stdout").read_text().splitlines()
        return [event for line in lines if (event := json.loads(line))["event"] == kind]

    def invite(self) -> None:
        self.invitation.write({"token": f"{self.hub.invitation('lyon')}\n".encode()})

    def ready(self, seconds: float = 30.0) -> None:
        wait_for(lambda: self.get("/readyz").status_code == 200, seconds, "the agent's readiness")

    def project(self) -> Manifest:
        """A project at the hub that names this hospital, which must be enrolled, and two others."""
        with link.connection(self.hub.address, authority=self.authority, proxy=None, timeout=30.0) as client:
            for site in self.others:
                site.http = client
                assert site.enrol(self.hub.invitation(site.name)).status_code == 201
            about = client.get("/v1/hub").json()
            roots = {site.name: site.root.public for site in self.others} | {"lyon": self.root.public}
            made = Manifest.of(
                manifests.values(
                    hub={"signing": about["signing"], "recipient": about["recipient"]},
                    members=[{"site": name, "root": root} for name, root in sorted(roots.items())],
                    contract=CONTRACT,
                )
            )
            headers = {"Authorization": f"Bearer {self.hub.token('ada')}"}
            answer = client.post("/v1/projects", content=made.encode(), headers=headers)
            assert answer.status_code == 201, answer.text
        return made

    def granted(self, manifest: Manifest) -> dict[str, bytes]:
        grant = Grant(
            manifest=manifest.digest(), site="lyon", not_before=int(time.time()) - 60, expires=LATER, dataset="heart",
            vouched={site.name: site.root.public for site in self.others},
        ).signed(self.root)  # fmt: skip
        return {f"grants.{grant.manifest}.json": grant.encode()}

    def revoked(self, manifest: Manifest) -> dict[str, bytes]:
        made = Revocation(manifest=manifest.digest(), site="lyon", time=int(time.time())).signed(self.root)
        return {f"revocations.{made.manifest}.json": made.encode()}


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
