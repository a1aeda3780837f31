"""Manifests of small pods that Pod Security "restricted" lets run."""

import os
from typing import Any

from tests.cluster.kubectl import Object

REGISTRY = os.environ.get(
    "KOINON_TEST_REGISTRY", "localhost"
)  # of busybox:1, minio:1 …, on a cluster of the user's own


def image(name: str) -> str:
    """An image of the test node's own, such as busybox, minio, prometheus."""
    return f"{REGISTRY}/{name}:1"


def pod(namespace: str, name: str, *command: str, **spec: Any) -> Object:
    """One container of busybox with the label `app: NAME`; `spec` adds to the pod's, `container` to the container's."""
    container = {
        "name": "main",
        "image": image("busybox"),
        "command": list(command) or ["sleep", "inf"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **spec.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "containers": [container],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            **spec,
        },
    }
