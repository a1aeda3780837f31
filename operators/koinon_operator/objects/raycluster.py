"""A project's RayCluster (KubeRay, ray.io/v1): a head, and workers as the operator sets them; no autoscaler.

KubeRay's autoscaler would give the head's account rights on pods. KubeRay 1.5 does not replace running pods when the
template changes, so each template carries its own digest, and the operator deletes pods that were made from another.
"""

import hashlib

from koinon_operator.kinds import RAY_CLUSTER, Object
from koinon_operator.names import GROUP, HEAD, TEMPLATE, WORKER, cluster, digest, labels
from koinon_operator.objects.pods import Ray, template


def build(ray: Ray, *, workers: int, token: str) -> Object:
    """`workers` beside the head. A new `token` makes new pods, since a running Ray keeps the one it started with."""
    spec: Object = {"headGroupSpec": _group(ray, HEAD, token)}
    given = ray.resources
    if given.max_workers:
        spec["workerGroupSpecs"] = [
            {
                "groupName": GROUP,
                "replicas": workers,
                "minReplicas": given.min_workers,
                "maxReplicas": given.max_workers,
                "numOfHosts": 1,
                **_group(ray, WORKER, token),
            }
        ]
    return RAY_CLUSTER.make(ray.hospital.work, cluster(ray.project), {"spec": spec}, labels=labels(ray.project))


def template_of(wanted: Object, node: str) -> Object:
    """The pod template of head or workers within a RayCluster."""
    if node == HEAD:
        found: Object = wanted["spec"]["headGroupSpec"]["template"]
    else:
        found = wanted["spec"]["workerGroupSpecs"][0]["template"]
    return found


def replicas(found: Object) -> int:
    groups = found["spec"].get("workerGroupSpecs") or []
    return sum(int(group.get("replicas", 0)) for group in groups)


def _group(ray: Ray, node: str, token: str) -> Object:
    made: Object = {"rayStartParams": _start(ray, node), "template": template(ray, node)}
    mark = hashlib.sha256(token.encode()).hexdigest()
    made["template"]["metadata"]["annotations"] = {TEMPLATE: digest({"group": made, "token": mark})}
    return made


def _start(ray: Ray, node: str) -> dict[str, str]:
    """Flags of `ray start`; KubeRay drops a flag that is "false", hence the 0."""
    given = ray.resources
    found = {
        "num-cpus": str(given.cpus),
        "num-gpus": str(given.gpus),
        "object-store-memory": str(given.memory * 3 // 10),
        "include-log-monitor": "0",
        "disable-usage-stats": "true",
    }
    return found | ({"dashboard-host": "0.0.0.0", "no-monitor": "true"} if node == HEAD else {})
