"""Prometheus as hospitals run it: the Prometheus operator finds the monitors and rules that the charts make."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tests.cluster import kubectl, pods
from tests.cluster.kubectl import Object
from tests.cluster.monitoring.prometheus import Prometheus

VERSION = "v3.12.0"  # of the test node's image; the operator writes flags and configuration for it
SCRAPE_SECONDS = 5
_RELOADER = ["/usr/bin/prometheus-config-reloader"]


def labels(namespace: str) -> dict[str, str]:
    """By which this Prometheus selects what it is to read: `monitoring.*.labels` of the charts."""
    return {"prometheus": namespace}


@contextmanager
def deployed(namespace: str, watched: Sequence[str]) -> Iterator[Prometheus]:
    """In `namespace`, which it makes; it scrapes what is in the `watched` namespaces. All of it goes at the end."""
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": restricted}},
        *_account(namespace, "prometheus-operator", _OPERATOR_RULES),
        *_account(namespace, "prometheus", _PROMETHEUS_RULES),
        _operator(namespace, [namespace, *watched]),
        _prometheus(namespace),
    )
    try:
        kubectl.until(lambda: kubectl.get("pod", "prometheus-koinon-0", namespace), "Prometheus' pod", 120)
        kubectl.wait(namespace, "pod/prometheus-koinon-0", "condition=Ready", 180)
        with _forwarded(namespace, "pod/prometheus-koinon-0", 9090) as port:
            yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        for name in ("prometheus-operator", "prometheus"):
            kubectl.run("delete", "clusterrole,clusterrolebinding", f"{namespace}-{name}", "--ignore-not-found")
        kubectl.run("delete", "namespace", namespace, "--wait=false")


@contextmanager
def _forwarded(namespace: str, target: str, port: int) -> Iterator[int]:
    """A port of this machine that leads to the pod's: also where pods cannot be reached from here."""
    command = ["kubectl", "-n", namespace, "port-forward", target, f":{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()  # Forwarding from 127.0.0.1:40000 -> 9090
        assert "Forwarding from" in line, f"{target} of {namespace} cannot be reached: {line}"
        yield int(line.split("->")[0].strip().rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def targets(found: Prometheus) -> dict[tuple[str, str], str]:
    """Health of what it scrapes, by namespace and pod."""
    active = found.get("targets", state="active")["activeTargets"]
    return {(one["labels"]["namespace"], one["labels"]["pod"]): one["health"] for one in active}


def settle(found: Prometheus, wanted: dict[str, int], seconds: float = 180) -> None:
    """Until in each namespace so many targets are there and up. Raises AssertionError with what is not."""

    def missing() -> dict[str, int]:
        up = [namespace for (namespace, _), health in targets(found).items() if health == "up"]
        return {name: count - up.count(name) for name, count in wanted.items() if up.count(name) < count}

    with suppress(AssertionError):
        kubectl.until(lambda: not missing(), "all targets", seconds)
    assert not missing(), f"not scraped: {missing()}; {found.unhealthy()}"


def _rules(group: str, resources: Sequence[str], *verbs: str) -> Object:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


_READ = ("get", "list", "watch")
_OPERATOR_RULES = [
    _rules("monitoring.coreos.com", ["*"], "*"),
    _rules("apps", ["statefulsets"], "*"),
    _rules("", ["configmaps", "secrets", "services"], "*"),
    _rules("", ["pods"], "list", "delete"),
    _rules("", ["namespaces"], *_READ),
    _rules("", ["events"], "create", "patch"),
    _rules("events.k8s.io", ["events"], "create", "patch"),
    _rules("storage.k8s.io", ["storageclasses"], "get"),
    _rules("policy", ["poddisruptionbudgets"], *_READ),
]
_PROMETHEUS_RULES = [
    _rules("", ["services", "endpoints", "pods"], *_READ),
    _rules("discovery.k8s.io", ["endpointslices"], *_READ),
]


def _account(namespace: str, name: str, rules: Sequence[Object]) -> list[Object]:
    full = f"{namespace}-{name}"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": full}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": full},
            "rules": list(rules),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": full},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    ]


def _operator(namespace: str, watched: Sequence[str]) -> Object:
    arguments = [
        f"--namespaces={','.join(watched)}",
        f"--prometheus-config-reloader={pods.image('prometheus-config-reloader')}",
        "--config-reloader-cpu-request=0",
        "--config-reloader-memory-request=0",
    ]
    container: dict[str, Any] = {"image": pods.image("prometheus-operator"), "args": arguments, "command": None}
    return pods.pod(
        namespace,
        "prometheus-operator",
        container=container,
        serviceAccountName="prometheus-operator",
        automountServiceAccountToken=True,
    )


def _prometheus(namespace: str) -> Object:
    selected = {"matchLabels": labels(namespace)}
    kinds = ("serviceMonitor", "podMonitor", "rule")
    every: dict[str, Any] = {f"{kind}NamespaceSelector": {} for kind in kinds}
    every |= {f"{kind}Selector": selected for kind in kinds}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "Prometheus",
        "metadata": {"name": "koinon", "namespace": namespace},
        "spec": {
            "image": pods.image("prometheus"),
            "version": VERSION,
            "replicas": 1,
            "serviceAccountName": "prometheus",
            "scrapeInterval": f"{SCRAPE_SECONDS}s",
            "evaluationInterval": f"{SCRAPE_SECONDS}s",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # The test node's image has the program elsewhere.
            "containers": [{"name": "config-reloader", "command": _RELOADER}],
            "initContainers": [{"name": "init-config-reloader", "command": _RELOADER}],
            **every,
        },
    }
