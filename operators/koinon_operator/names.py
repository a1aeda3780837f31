"""Names and labels of all that the operator makes."""

import hashlib
import json
from typing import Any

from koinon_operator.kinds import Object

MANAGER = "koinon"
MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
PROJECT = "koinon.dev/project"
NODE = "koinon.dev/node"
WANTED = "koinon.dev/wanted"
"""Annotation: digest of the object as the operator last wanted it. With it an edit by hand is told from a new wish."""
TEMPLATE = "koinon.dev/template"
"""Annotation of Ray pods: digest of the template that they are made from; KubeRay does not replace pods by itself."""
REFRESH = "koinon.dev/refresh"
"""Annotation of the agent's pod: any change lets kubelet read the mounted consents again at once."""

RAY_SECRET = "koinon-ray"
CONSENTS = "koinon-consents"
DENIAL = "koinon-denial"
DENY_ALL = "koinon-deny-all"
QUOTA = "koinon"
LIMITS = "koinon"
ACCOUNT = "koinon-ray"

AGENT = "agent"
HEAD = "head"
WORKER = "worker"
GROUP = "workers"
DENIAL_CONTAINER = "denial"
RAY_CLUSTER_LABEL = "ray.io/cluster"

DASHBOARD_PORT = 8265
TRAINER_PORT = 8471
GCS_PORT = 6379
METRICS_PORT = 8080
DASHBOARD_AGENT_PORT = 52365
PORTS = {"gcs": GCS_PORT, "dashboard": DASHBOARD_PORT, "trainer": TRAINER_PORT, "metrics": METRICS_PORT}
"""Of a head."""


def short(manifest: str) -> str:
    """What stands for a project in names and labels: 12 digits of its manifest's hash."""
    return manifest[:12]


def cluster(project: str) -> str:
    return f"p-{project}"


def head(project: str) -> str:
    return f"p-{project}-head"


def labels(project: str = "") -> dict[str, str]:
    found = {MANAGED_BY: MANAGER}
    return found | {PROJECT: project} if project else found


def project_of(obj: Object) -> str:
    """The project that an object belongs to, "" if none; KubeRay's own objects name the cluster only."""
    found: dict[str, str] = obj.get("metadata", {}).get("labels") or {}
    if found.get(PROJECT):
        return found[PROJECT]
    owner = found.get(RAY_CLUSTER_LABEL, "")
    return owner[2:] if owner.startswith("p-") else ""


def digest(value: Any) -> str:
    """Sixteen digits that stand for a wish; equal wishes have equal ones. No signature depends on it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
