"""A Site and signed Grants to vary in tests, and the pods that KubeRay would make of a RayCluster."""

import copy
import itertools
from typing import Any

from koinon.agent import consents
from koinon.domain import objects
from koinon.domain.grant import Grant, Resources, Revocation
from koinon.domain.keys import SigningKey
from koinon.domain.manifest import Manifest
from koinon_operator import names
from koinon_operator.documents import Hospital, read_hospital
from koinon_operator.kinds import POD, SITE, Object
from koinon_operator.objects import pods
from tests.unit.domain import manifests

NOW = 1_700_000_000
ROOT = manifests.ROOTS["lyon"]
IMAGE = "registry.lyon.example/koinon-worker:1"
_COUNT = itertools.count(1)


def site(home: str = "lyon", work: str = "lyon-work", *, name: str = "lyon", **changes: Any) -> Object:
    """`changes` to the top fields of the spec."""
    spec = {
        "hub": {"url": "https://hub.example.org", "cidrs": ["203.0.113.7/32"]},
        "root": ROOT.public,
        "workNamespace": work,
        "images": {"worker": IMAGE},
        "datasets": [{"name": "heart", "claimName": "heart", "path": "heart.csv"}],
        "quota": {"cpu": 64, "memory": "256Gi", "gpus": 0, "pods": 100},
    }
    return SITE.make(home, name, {"spec": spec | changes})


def seen(resource: Object, **meta: Any) -> Object:
    """As the API server shows it."""
    count = next(_COUNT)
    known = {
        "uid": f"uid-{count}",
        "resourceVersion": str(count),
        "generation": 1,
        "creationTimestamp": "2023-11-14T22:13:20Z",
    }
    found = copy.deepcopy(resource)
    found["metadata"] = {**found["metadata"], **known, **meta}
    return found


def hospital(**changes: Any) -> Hospital:
    return read_hospital(seen(site(**changes)))


def manifest(name: str = "heart", **changes: Any) -> Manifest:
    return manifests.build(name=name, **changes)


def grant(given: Manifest | None = None, *, root: SigningKey = ROOT, now: float = NOW, **changes: Any) -> Grant:
    """A grant of lyon by its root, for 30 days from `now`. `changes` to the arguments of `consents.grant`."""
    wanted: dict[str, Any] = {"dataset": "heart", "vouched": ["lille", "nice"], "days": 30}
    return consents.grant(given or manifest(), root, "lyon", now=now, **wanted | changes)


def revocation(given: Grant, *, root: SigningKey = ROOT, now: float = NOW) -> Revocation:
    return consents.revocation(given, root, now=now)


def grant_resource(
    given: Manifest | None = None, *, home: str = "lyon", ended: Revocation | None = None, **changes: Any
) -> Object:
    """The Grant to apply; `changes` as in `grant`."""
    document = given or manifest()
    made = objects.grant_object(grant(document, **changes), document, home)
    if ended is not None:
        made["spec"]["revocation"] = {"time": ended.time, "signature": ended.signature}
    return made


def ray(resources: Resources | None = None, project: str = "0123456789ab", **changes: Any) -> pods.Ray:
    """`changes` to the Site's spec."""
    found = hospital(**changes)
    return pods.Ray(project, found, found.datasets["heart"], resources or Resources(), "10.96.1.2", "cluster.local")


def pod(cluster: Object, node: str, *, ready: bool = True, proven: bool = True, suffix: str = "abcde") -> Object:
    """A Ray pod as KubeRay 1.5 makes it of a RayCluster's template, and kubelet reports it."""
    spec = cluster["spec"]
    group = spec["headGroupSpec"] if node == names.HEAD else spec["workerGroupSpecs"][0]
    template = copy.deepcopy(group["template"])
    body: Object = template["spec"]
    owner = cluster["metadata"]["name"]
    for container in body["initContainers"]:
        container["env"] = [*container.get("env", []), {"name": "FQ_RAY_IP", "value": f"{owner}-head-svc"}]
    main = body["containers"][0]
    if node == names.WORKER:
        body["initContainers"].append(
            {
                "name": "wait-gcs-ready",
                "image": main["image"],
                "env": [*main["env"], {"name": "FQ_RAY_IP", "value": f"{owner}-head-svc"}],
                "command": ["/bin/bash", "-c", "--"],
                "args": ["until ray health-check; do sleep 5; done"],
                "volumeMounts": copy.deepcopy(main["volumeMounts"]),
                "securityContext": copy.deepcopy(main["securityContext"]),
                "resources": {"limits": {"cpu": "200m", "memory": "256Mi"}},
            }
        )
    main["command"], main["args"] = ["/bin/bash", "-c", "--"], ["ulimit -n 65536; ray start --block"]
    main["env"] = [*main["env"], {"name": "RAY_CLUSTER_NAME", "value": owner}]
    body["schedulerName"] = "nobody"  # on a real cluster: no node takes it, the test reports in kubelet's place
    meta = template["metadata"]
    meta["labels"] = {"ray.io/cluster": owner, "ray.io/node-type": node, **meta["labels"]}
    made = POD.make(cluster["metadata"]["namespace"], f"{owner}-{node}-{suffix}", {"spec": body})
    made["metadata"] |= {"labels": meta["labels"], "annotations": meta["annotations"]}
    made["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "ray.io/v1",
            "kind": "RayCluster",
            "name": owner,
            "uid": cluster["metadata"].get("uid", "uid-of-cluster"),
            "controller": True,
        }
    ]
    made["status"] = pod_status(ready=ready, proven=proven)
    return made


def pod_status(*, ready: bool = True, proven: bool = True, message: str = "") -> Object:
    """What kubelet says. Not `proven`: with a `message` the init container reached it, without one it runs."""
    state: Object = {"running": {}}
    if proven or message:
        ended = {"exitCode": 0 if proven else 1, "message": message}
        state = {"terminated": {**ended, "startedAt": None, "finishedAt": None}}
    return {
        "phase": "Running" if ready else "Pending",
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "initContainerStatuses": [
            {"name": "denial", "image": IMAGE, "imageID": "", "ready": proven, "restartCount": 0, "state": state}
        ],
    }
