"""Run one of the project's images to its end, as a pod."""

import secrets
from collections.abc import Sequence

from tests.cluster import kubectl, pods


def image(target: str) -> str:
    """gateway, agent, operator or worker, as the cluster names it."""
    return f"{pods.REGISTRY}/koinon-{target}:test"


def run(
    namespace: str,
    target: str,
    command: Sequence[str] | None = None,
    *,
    arguments: Sequence[str] = (),
    seconds: float = 60,
) -> tuple[int, str]:
    """Exit status and output of a container with a read-only root and an empty /tmp.

    Without `command` the image's entrypoint runs. Raises AssertionError if it has not ended after `seconds`.
    """
    name = f"{target}-{secrets.token_hex(3)}"
    spec = pods.pod(
        namespace,
        name,
        container={
            "image": image(target),
            "command": list(command) if command else None,
            "args": list(arguments),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        },
        volumes=[{"name": "tmp", "emptyDir": {}}],
        restartPolicy="Never",
    )
    kubectl.apply(spec)

    def ended() -> bool:
        phase: str = kubectl.required("pod", name, namespace)["status"].get("phase", "")
        return phase in ("Succeeded", "Failed")

    kubectl.until(ended, f"{name} ended", seconds)
    status = kubectl.required("pod", name, namespace)["status"]["containerStatuses"][0]["state"]["terminated"]
    return int(status["exitCode"]), kubectl.run("-n", namespace, "logs", name)
