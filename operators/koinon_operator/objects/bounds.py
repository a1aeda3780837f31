"""What all pods of the work namespace may use together, and what one gets that does not say."""

from koinon_operator.documents import Quota
from koinon_operator.kinds import LIMIT_RANGE, RESOURCE_QUOTA, Object
from koinon_operator.names import LIMITS, QUOTA, labels

GPU = "nvidia.com/gpu"


def quota(work: str, given: Quota) -> Object:
    """The hospital's quota. No Service of the namespace may be reached from outside the cluster."""
    cpu, memory = f"{given.cpu.normalize():f}", str(given.memory)
    hard = {
        "requests.cpu": cpu,
        "limits.cpu": cpu,
        "requests.memory": memory,
        "limits.memory": memory,
        f"requests.{GPU}": str(given.gpus),
        "pods": str(given.pods),
        "services.nodeports": "0",
        "services.loadbalancers": "0",
    }
    return RESOURCE_QUOTA.make(work, QUOTA, {"spec": {"hard": hard}}, labels=labels())


def limits(work: str) -> Object:
    """A container that names no limits gets small ones: the quota refuses it otherwise, with no word to its maker."""
    small = {"cpu": "200m", "memory": "256Mi"}
    spec = {"limits": [{"type": "Container", "default": small, "defaultRequest": small}]}
    return LIMIT_RANGE.make(work, LIMITS, {"spec": spec}, labels=labels())
