"""Releases of the charts on the cluster, small enough for a test node."""

import base64
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from tests.cluster import kubectl, pods
from tests.cluster.rendered.render import CHARTS, Object, merged

TINY = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
IMAGES = {"registry": pods.REGISTRY, "tag": "test", "pullPolicy": "IfNotPresent"}
VOLUME = {"size": "100Mi"}
HUB: Object = {
    "image": IMAGES,
    "gateway": {"resources": TINY, "persistence": VOLUME},
    "postgresql": {"image": {"repository": "postgresql", "tag": "1"}, "resources": TINY, "persistence": VOLUME},
    "minio": {"image": {"repository": "minio", "tag": "1"}, "resources": TINY, "persistence": VOLUME},
}
TRIAL = merged(HUB, {"tls": {"generate": True}, "postgresql": {"enabled": True}, "minio": {"enabled": True}})


def site(work: str, **more: Any) -> Object:
    """Values of a hospital `lyon`, whose hub is at an address where nobody is."""
    least: Object = {
        "image": IMAGES,
        "site": {"name": "lyon", "root": "ab" * 32},
        "hub": {"url": "https://hub.example.org", "cidrs": ["192.0.2.7/32"]},
        "datasets": [{"name": "heart", "claimName": "heart", "path": "heart.csv"}],
        "workNamespace": {"name": work, "create": False},
        "agent": {"resources": TINY, "persistence": VOLUME},
        "operator": {"resources": TINY},
    }
    return merged(least, more)


def install(release: str, chart: str, namespace: str, values: Mapping[str, Any], *options: str) -> str:
    """Installs or upgrades, and returns what helm says. Raises Failed with its words."""
    command = ["upgrade", "--install", release, str(CHARTS / chart), "-n", namespace, "-f", "-", "--timeout=4m"]
    return kubectl.helm(*command, *options, stdin=json.dumps(values), seconds=300)


def uninstall(release: str, namespace: str) -> None:
    kubectl.helm("uninstall", release, "-n", namespace, "--wait", "--timeout=4m", seconds=300)


def secret(namespace: str, name: str, **values: str) -> Object:
    """A Secret; `_` in a name stands for `.`, `__` for `-`."""
    data = {key.replace("__", "-").replace("_", "."): value for key, value in values.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": data,
    }


def read_secret(namespace: str, name: str) -> dict[str, str]:
    data = kubectl.required("secret", name, namespace).get("data", {})
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def require_left(namespace: str, wanted: set[str]) -> None:
    """Nothing but `wanted` stays. Helm waits for a Deployment to go, Kubernetes then ends its pods."""
    with contextlib.suppress(AssertionError):
        kubectl.until(lambda: left(namespace) == wanted, f"only {wanted} are left", seconds=90)
    found = left(namespace)
    assert found == wanted, f"{namespace}: left {found - wanted}, missing {wanted - found}"


def left(namespace: str) -> set[str]:
    """What is in a namespace, as kind/name, beside what Kubernetes puts into each and what passes by itself."""
    kinds = kubectl.run("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    passing = ("events", "pods.metrics", "endpoints", "endpointslices", "controllerrevisions", "bindings", "leases")
    asked = ",".join(kind for kind in kinds if not kind.startswith(passing))
    found = kubectl.run("-n", namespace, "get", asked, "-o", "name", "--ignore-not-found", seconds=120).split()
    return set(found) - {"serviceaccount/default", "configmap/kube-root-ca.crt"}
