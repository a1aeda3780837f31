"""The kinds of objects that the operator reads or keeps, and where the API server has them."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as JSON gives it."""


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    plural: str
    name: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, "namespaces", namespace, self.plural, *filter(None, (name, subresource))]
        return "/".join(parts)

    def make(self, namespace: str, name: str, body: Object, *, labels: dict[str, str] | None = None) -> Object:
        """An object of this kind, `body` being all beside its metadata."""
        metadata: Object = {"name": name, "namespace": namespace}
        if labels:
            metadata["labels"] = dict(labels)
        return {"apiVersion": self.api_version, "kind": self.name, "metadata": metadata, **body}


SITE = Kind("koinon.dev", "v1alpha1", "sites", "Site")
GRANT = Kind("koinon.dev", "v1alpha1", "grants", "Grant")
RAY_CLUSTER = Kind("ray.io", "v1", "rayclusters", "RayCluster")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
RESOURCE_QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGE = Kind("", "v1", "limitranges", "LimitRange")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
SECRET = Kind("", "v1", "secrets", "Secret")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
SERVICE = Kind("", "v1", "services", "Service")
POD = Kind("", "v1", "pods", "Pod")
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
EVENT = Kind("", "v1", "events", "Event")

HOME = (SITE, GRANT, SECRET, CONFIG_MAP)
"""Watched in a hospital's own namespace; of Secrets and ConfigMaps only the one that is the operator's."""

WORK = (
    RAY_CLUSTER, NETWORK_POLICY, RESOURCE_QUOTA, LIMIT_RANGE, SERVICE_ACCOUNT, SECRET, CONFIG_MAP, SERVICE, POD, CLAIM,
)  # fmt: skip
"""Watched in its work namespace; of Secrets and ConfigMaps again only the operator's own."""

BY_NAME = {kind.name: kind for kind in (*HOME, *WORK, EVENT)}


def kind_of(obj: Object) -> Kind:
    return BY_NAME[obj["kind"]]
