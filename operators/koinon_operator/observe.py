"""What the pods of a cluster show: is it ready, and if not, why. Pure.

KubeRay is silent about a RayCluster that it cannot use, and its own status lags; so the pods are looked at, and after
some time without them the condition says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from koinon_operator.kinds import Object
from koinon_operator.names import HEAD, NODE, WORKER
from koinon_operator.status import Condition, false, true

TYPE = "ClusterReady"
_BAD_WAITS = frozenset(
    (
        "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError",
        "CrashLoopBackOff", "RunContainerError",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Waiting:
    """Since when the cluster is not ready, for how long that is no cause for concern, and what KubeRay says."""

    since: float
    now: float
    limit: float
    hint: str = ""

    @property
    def too_long(self) -> bool:
        return self.now - self.since >= self.limit


def of_node(pods: Sequence[Object], node: str) -> list[Object]:
    return [
        pod
        for pod in pods
        if pod["metadata"].get("labels", {}).get(NODE) == node and not pod["metadata"].get("deletionTimestamp")
    ]


def ready(pod: Object) -> bool:
    conditions: list[Object] = pod.get("status", {}).get("conditions") or []
    return any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)


def ready_workers(pods: Sequence[Object]) -> int:
    return sum(ready(pod) for pod in of_node(pods, WORKER))


def condition(pods: Sequence[Object], *, least: int, wanted: int, waiting: Waiting) -> Condition:
    """`least` workers are enough to train, `wanted` are asked for."""
    heads, count = of_node(pods, HEAD), ready_workers(pods)
    if any(ready(pod) for pod in heads) and count >= least:
        beside = f" and {count} of {wanted} workers are" if wanted else " is"
        return true(TYPE, "Ready", f"The head{beside} ready.")
    for pod in pods:
        problem = _failing(pod)
        if problem:
            return false(TYPE, "PodFailing", problem)
    pending = next(filter(None, (_pending(pod) for pod in pods)), "")
    what = pending or _missing(heads, count, least)
    if waiting.too_long:
        hint = f" KubeRay says: {waiting.hint}" if waiting.hint else ""
        asked = "" if heads else " Does KubeRay run, and may it work in this namespace?"
        return false(TYPE, "ClusterTimeout", f"Not ready for {waiting.limit:.0f} s. {what}{asked}{hint}")
    return false(TYPE, "PodPending" if pending else "Creating", what)


def _missing(heads: Sequence[Object], count: int, least: int) -> str:
    if not heads:
        return "There is no pod of the head yet."
    if not any(ready(pod) for pod in heads):
        return "The head is starting."
    return f"{count} of at least {least} workers are ready."


def _failing(pod: Object) -> str:
    status = pod.get("status", {})
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting: Object = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _BAD_WAITS:
            last: Object = container.get("lastState", {}).get("terminated") or {}
            detail = " ".join(str(last.get("message") or waiting.get("message") or "").split())[:300]
            why = " (out of memory: grant more)" if last.get("reason") == "OOMKilled" else ""
            return f"{pod['metadata']['name']}: {container['name']}: {waiting['reason']}{why}. {detail}".strip()
    return ""


def _pending(pod: Object) -> str:
    for found in pod.get("status", {}).get("conditions") or []:
        if found.get("type") == "PodScheduled" and found.get("status") == "False":
            return f"{pod['metadata']['name']}: no node takes it: {found.get('message', '')}"
    return ""
