"""What the init containers say: did each Ray pod prove that it reaches nothing? Pure."""

from collections.abc import Sequence

from koinon_operator.kinds import Object
from koinon_operator.names import DENIAL_CONTAINER
from koinon_operator.status import Condition, false, true, unknown

TYPE = "EgressDenied"
_REACHED = "reachable:"
"""How the message of koinon.trainer.denial begins if something answered; it ends with 1 then."""


def condition(pods: Sequence[Object]) -> Condition:
    """True if every pod's init container ended well. One that ended badly counts, although it is tried again."""
    pods = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    if not pods:
        return unknown(TYPE, "NotTried", "There is no Ray pod yet.")
    ends = [(pod["metadata"]["name"], _last_end(pod)) for pod in pods]
    for name, end in ends:
        reached = _reached(end)
        if reached:
            todo = "Does the cluster enforce NetworkPolicies? The container with the data does not start before."
            return false(TYPE, "Reachable", f"{name} reached {reached}. {todo}")
    for name, end in ends:
        if end and end.get("exitCode") != 0:
            return unknown(TYPE, "ProbeFailed", f"{name} could not try: {_told(end)}. It tries again.")
    waiting = sum(not _proven(pod) for pod in pods)
    if waiting:
        return unknown(TYPE, "Trying", f"{waiting} of {len(pods)} Ray pods have yet to prove it.")
    return true(TYPE, "Proven", f"Each of {len(pods)} Ray pods tried to reach what it must not, in vain.")


def _state(pod: Object) -> Object:
    """The init container's status."""
    statuses: list[Object] = pod.get("status", {}).get("initContainerStatuses") or []
    return next((found for found in statuses if found.get("name") == DENIAL_CONTAINER), {})


def _proven(pod: Object) -> bool:
    ended: Object = _state(pod).get("state", {}).get("terminated") or {}
    return ended.get("exitCode") == 0


def _last_end(pod: Object) -> Object:
    """How the init container ended when it ran last; empty if it has not yet."""
    found = _state(pod)
    ends: list[Object | None] = [found.get(when, {}).get("terminated") for when in ("state", "lastState")]
    return next((end for end in ends if end is not None), {})


def _reached(end: Object) -> str:
    """What it says that it reached. The exit status alone says little: 1 is also that of a Python that failed."""
    said = str(end.get("message") or "").strip()
    return said.removeprefix(_REACHED).strip() if end.get("exitCode") == 1 and said.startswith(_REACHED) else ""


def _told(end: Object) -> str:
    said = " ".join(str(end.get("message") or "").split())[:300]
    return ", ".join(filter(None, (f"exit status {end.get('exitCode')}", end.get("reason"), said)))
