"""The processes of a local federation that can be killed, found in /proc by what they are."""

from pathlib import Path

from koinon.client.local import Local
from koinon.client.supervisor import descendants

KINDS = ("hub", "agent", "trainer", "ray")
_RAY = ("gcs_server", "raylet")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def of(federation: Local, kind: str, site: str) -> list[int]:
    """The host's ids of the processes of this kind: hub and agent have one, Ray's head is GCS and raylet."""
    pid = federation.processes.pid("hub" if kind == "hub" else site)
    if pid is None:
        return []
    if kind in ("hub", "agent"):
        return [pid]
    below = {child: _command(child) for child in descendants(pid)}
    if kind == "ray":
        return [child for child, command in below.items() if any(f"/{name}" in command.split(" ")[0] for name in _RAY)]
    return [child for child, command in below.items() if "-m koinon.trainer " in command]
