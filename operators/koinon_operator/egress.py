"""What the init containers say: did each Ray pod prove that it reaches nothing? Pure."""

from collections.abc import Sequence

from koinon_operator.kinds import Object
from koinon_operator.names import DENIAL_CONTAINER
from koinon_operator.status import Condition, false, true, unknown

TYPE = "EgressDenied"


def condition(pods: Sequence[Object]) -> Condition:
    """True if every pod's init container ended well. One that ended badly counts, although it is tried again."""
    if not pods:
        return unknown(TYPE, "NotTried", "There is no Ray pod yet.")
    waiting = 0
    for pod in pods:
        reached = _reached(pod)
        if reached is not None:
            name = pod["metadata"]["name"]
            todo = "Does the cluster enforce NetworkPolicies? The container with the data does not start before."
            return false(TYPE, "Reachable", f"{name} reached {reached or 'what it must not'}. {todo}")
        waiting += not _proven(pod)
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


def _reached(pod: Object) -> str | None:
    """What the init container reached when it ran last; None if nothing is known to be reachable."""
    found = _state(pod)
    for when in ("state", "lastState"):
        ended: Object | None = found.get(when, {}).get("terminated")
        if ended is not None:
            return (
                None
                if ended.get("exitCode") == 0
                else str(ended.get("message") or "").strip().removeprefix("reachable: ")
            )
    return None
