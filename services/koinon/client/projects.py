"""A project: its manifest, who granted it, and the runs within it."""

import hashlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from koinon.domain import canonical, errors, parameters
from koinon.domain.manifest import Manifest

if TYPE_CHECKING:
    from koinon.client.hub import Hub
    from koinon.client.runs import Run

_BETWEEN_LOOKS = 1.0  # seconds: grants are made by people, and the hub tells no researcher when


class Project:
    """One immutable manifest at one hub."""

    def __init__(self, hub: "Hub", manifest: Manifest, owner: str = "") -> None:
        self.hub = hub
        self.manifest = manifest
        self.owner = owner
        self.name = manifest.name
        self.hash = manifest.digest()

    @classmethod
    def of(cls, hub: "Hub", row: dict[str, Any]) -> "Project":
        """From what the hub lists. Raises Untrusted if the manifest is not the one its name says."""
        project = cls(hub, Manifest.of(row["manifest"], where="manifest"), str(row.get("owner", "")))
        if row.get("hash", project.hash) != project.hash:
            raise errors.Untrusted("The hub shows a manifest of another hash.", where=f"project {project.name}")
        return project

    def __repr__(self) -> str:
        return f"Project({self.name}, {self.hash[:12]}, {len(self.sites)} sites)"

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(member.site for member in self.manifest.members)

    def grants(self) -> dict[str, dict[str, Any]]:
        """Per member: `{"state": "granted" | "pending" | "expired" | "revoked", "expires": seconds or None}`."""
        return grants_of(self.hub.connection.get(f"/v1/projects/{self.hash}"), self.sites)

    def wait_for_grants(
        self, timeout: float | None = None, *, say: Callable[[str], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Returns once every member has granted; tells `say` who has and who has not, whenever that changes.

        Raises Waiting after `timeout` seconds, Refused once a hospital revoked.
        """
        say = say or _to_stderr
        begun, told = time.time(), ""
        until = f"until {time.strftime('%H:%M:%S', time.localtime(begun + timeout))}" if timeout else "without end"
        while True:
            grants = self.grants()
            missing = [site for site, grant in grants.items() if grant["state"] != "granted"]
            revoked = [site for site, grant in grants.items() if grant["state"] == "revoked"]
            if revoked:
                raise errors.Refused(
                    f"{', '.join(revoked)} revoked the grant.",
                    where=f"project {self.name}",
                    todo="Talk to the hospital.",
                )
            if not missing:
                say(f"All {len(grants)} hospitals have granted {self.name}.")
                return grants
            line = f"Granted by {_listed(sorted(set(grants) - set(missing)))}; waiting for {_listed(missing)} {until}."
            if line != told:
                say(line)
                told = line
            if timeout is not None and time.time() - begun >= timeout:
                raise errors.Waiting(
                    f"{_listed(missing)} has not granted it within {timeout:.0f} s.",
                    where=f"project {self.name}",
                    todo=f"At the hospital: koinon grant {self.name}",
                )
            time.sleep(_BETWEEN_LOOKS)

    def submit(self, *, key: str | None = None, again: bool = False, **choices: Any) -> "Run":
        """A run with these parameters; what is not named takes the manifest's default. Safe to repeat.

        The Idempotency-Key is made of project and parameters: the same call finds the same run, also from another
        process, unless that run failed or was cancelled. `again=True` starts another one; `key` is one's own key.
        Raises Invalid that names the parameter, before anything is sent.
        """
        from koinon.client.runs import Run

        chosen = parameters.complete(self.manifest.parameters, choices)
        body = {"project": self.hash, "parameters": chosen}
        seed = str(time.time_ns()) if again else ""
        while True:
            used = key or canonical.digest({"project": self.hash, "parameters": chosen, "after": seed})[:32]
            response = self.hub.connection.post("/v1/runs", body, key=used)
            run = Run(self.hub, response.json())
            run.created_now = response.status_code == 201
            if key or run.state not in ("failed", "cancelled") or run.created_now:
                return run
            seed = hashlib.sha256(run.id.encode()).hexdigest()

    def runs(self) -> list["Run"]:
        return self.hub.runs(project=self.hash)


def grants_of(row: dict[str, Any], sites: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What the hub says of a project's grants, one entry for every member."""
    known = row.get("grants", {})
    if isinstance(known, list):
        known = {grant["site"]: grant for grant in known}
    return {site: {"state": "pending", "expires": None, **(known.get(site) or {})} for site in sites}


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "nobody"


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
