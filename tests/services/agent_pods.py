"""A hospital's agent in its Kubernetes form, as a process of this machine with everything mounted."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from koinon.agent import link, setup
from koinon.agent.config import Folder
from koinon.artifacts import keyfiles
from koinon.client import commands
from koinon.domain.grant import Grant, Revocation
from koinon.domain.manifest import Manifest
from tests.services import ports
from tests.services.authority import Authority
from tests.services.hospitals import LATER, Hospital
from tests.services.hubs import wait_for
from tests.services.mounts import Mount
from tests.services.served import Served
from tests.services.trainers import CONTRACT, HEART
from tests.unit.domain import manifests

OTHERS = ("lille", "nice")


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
