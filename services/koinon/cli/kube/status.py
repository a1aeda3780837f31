"""`kubectl koinon status`: one screen about a hospital."""

from datetime import datetime
from typing import Any

from koinon.cli import output
from koinon.cli.kube.gather import Picture
from koinon.cli.kube.hospital import condition
from koinon.domain.keys import fingerprint

_GRANT_STATES = ("Revoked", "Expired")


def show(picture: Picture) -> None:
    site, agent = picture.hospital, picture.agent
    conditions = [(kind, _words(condition(site.object, kind))) for kind in ("Ready", "Connected")]
    output.say(f"Hospital {site.site}, namespace {site.namespace}, clusters in {site.work}")
    output.fields(
        (
            ("fingerprint", fingerprint(site.root)),
            ("hub", site.object["spec"]["hub"]["url"]),
            *(conditions if site.declared else [("site", "not declared yet: kubectl koinon doctor")]),
            ("agent", _agent(agent) if agent else "does not answer: kubectl koinon doctor"),
            ("trouble", (agent or {}).get("trouble")),
            ("last round", _last_round((agent or {}).get("last_round"))),
        )
    )
    output.say()
    output.table(
        ("grant", "state", "since", "pods", "workers", "expires"),
        (_grant(picture, grant) for grant in sorted(picture.grants, key=lambda g: str(g["metadata"]["name"]))),
        none="No project is granted.",
    )
    pending = (agent or {}).get("pending", ())
    if pending:
        output.say()
        names = ", ".join(f"{entry['name']} ({entry['hash'][:8]})" for entry in pending)
        output.say(f"Waiting for your grant: {names}")
        output.say(f"Read one: kubectl koinon grant {pending[0]['name']} -n {site.namespace} --root-key FILE")


def document(picture: Picture) -> dict[str, Any]:
    """The same for programs."""
    return {
        "site": picture.hospital.site,
        "namespace": picture.hospital.namespace,
        "declared": picture.hospital.declared,
        "conditions": picture.hospital.object.get("status", {}).get("conditions", []),
        "agent": picture.agent,
        "grants": [
            {"name": grant["metadata"]["name"], "manifest": grant["spec"]["manifest"], **grant.get("status", {})}
            for grant in picture.grants
        ],
    }


def _agent(said: dict[str, Any]) -> str:
    contact = f"last contact {output.ago(said.get('last_contact'))}"
    clock = f"clock {said.get('clock_offset', 0):+.1f} s against the hub's"
    return f"version {said.get('version')}, {contact}, {clock}"


def _last_round(said: dict[str, Any] | None) -> str | None:
    if not said:
        return None
    return f"{said.get('kind')} {said.get('round')} of {said.get('run')}, {output.ago(said.get('time'))}"


def _grant(picture: Picture, grant: dict[str, Any]) -> tuple[Any, ...]:
    pods = picture.of_grant(grant, "pods")
    running = sum(1 for pod in pods if pod.get("status", {}).get("phase") == "Running")
    state, since = state_of(grant)
    return (
        grant["metadata"]["name"],
        state,
        since,
        f"{running}/{len(pods)}",
        grant.get("status", {}).get("workers", 0),
        output.when(grant["spec"]["expires"]),
    )


def state_of(grant: dict[str, Any]) -> tuple[str, str]:
    """One word for a Grant, with the reason if it is not ready; and since when."""
    for kind in _GRANT_STATES:
        if condition(grant, kind).get("status") == "True":
            return kind, _since(condition(grant, kind))
    ready = condition(grant, "Ready")
    if not ready:
        return "New", ""
    return ("Ready" if ready["status"] == "True" else str(ready.get("reason", "NotReady"))), _since(ready)


def _since(found: dict[str, Any]) -> str:
    time = found.get("lastTransitionTime")
    return output.ago(datetime.fromisoformat(time).timestamp()) if time else ""


def _words(found: dict[str, Any]) -> str:
    if not found:
        return "unknown: the operator has not looked yet"
    since = f", since {_since(found)}"
    return f"{found['status']} ({found.get('reason', '')}){since}" + (
        f": {found['message']}" if found["status"] != "True" and found.get("message") else ""
    )
