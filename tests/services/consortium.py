"""A hub process, hospitals, one project that all of them granted, and a researcher's client."""

import contextlib
from typing import Any

import httpx

from koinon.artifacts import keyfiles
from koinon.domain.manifest import Manifest
from tests.services.hospitals import Hospital
from tests.services.hubs import HubProcess, wait_for
from tests.unit.domain import manifests

NAMES = ("lille", "lyon", "nantes", "nice")
PLANNED = {"train": 60, "phase": 60}


class Federation:
    """A hub, hospitals, one project that all of them granted, and the researcher's client."""

    def __init__(self, hub: HubProcess, **changes: Any) -> None:
        self.hub = hub
        self.client = hub.client()
        self.reader = keyfiles.new_identity()
        about = self.client.get("/v1/hub").json()
        self.sites = {name: Hospital(name, hub.url) for name in NAMES}
        for site in self.sites.values():
            answer = site.enrol(hub.invitation(site.name))
            assert answer.status_code == 201, answer.text
        given = {
            "hub": {"signing": about["signing"], "recipient": about["recipient"]},
            "members": [{"site": site.name, "root": site.root.public} for site in self.sites.values()],
            "recipients": [{"name": "ada", "recipient": self.reader.recipient}],
            "deadlines": PLANNED,
        }
        self.manifest = Manifest.of(manifests.values(**(given | changes)))
        answer = self.client.post("/v1/projects", content=self.manifest.encode())
        assert answer.status_code == 201, answer.text
        for site in self.sites.values():
            site.grant(self.manifest)

    def start(self, *names: str) -> None:
        for name in names or NAMES:
            self.sites[name].start()

    def __enter__(self) -> "Federation":
        return self

    def __exit__(self, *error: object) -> None:
        self.close(quiet=error[0] is not None)

    def close(self, *, quiet: bool = False) -> None:
        for site in self.sites.values():
            site.end()
        for site in self.sites.values():
            site.stop()
        self.client.close()
        for site in self.sites.values():
            site.http.close()
            assert quiet or not site.failures, site.failures

    def submit(self, **parameters: Any) -> str:
        body = {"project": self.manifest.digest(), "parameters": {"rounds": 2, **parameters}}
        answer = self.client.post("/v1/runs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def run(self, run: str) -> dict[str, Any]:
        with contextlib.suppress(httpx.TransportError):
            answer = self.client.get(f"/v1/runs/{run}")
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
        return {"state": "unknown"}

    def finish(self, run: str, seconds: float = 90.0) -> dict[str, Any]:
        final = ("completed", "failed", "cancelled")
        found: dict[str, Any] = wait_for(lambda: (r := self.run(run))["state"] in final and r, seconds, "the run's end")
        return found

    def complete(self, run: str, seconds: float = 90.0) -> dict[str, Any]:
        found = self.finish(run, seconds)
        assert found["state"] == "completed", found["reason"] + self.hub.log()
        return found

    def rounds(self, run: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(f"/v1/runs/{run}/rounds").json()["rounds"]
        return found
