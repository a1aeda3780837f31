"""NetworkPolicies are enforced: what was seen to work stops, and what a policy lets through goes on."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster import kubectl, pods
from tests.cluster.conftest import Cluster
from tests.cluster.kubectl import Object

_PORT = 8080


def _policy(namespace: str, name: str, **spec: object) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"podSelector": {"matchLabels": {"app": name}}, **spec},
    }


@dataclass(frozen=True)
class Network:
    """A server with a Service, a friend and a stranger in one namespace."""

    namespace: str
    address: str  # of the server's pod
    dns: str
    api: str

    def ways_to_server(self) -> tuple[str, ...]:
        return (f"wget -q -O- http://{self.address}:{_PORT}/", f"wget -q -O- http://server.{self.namespace}/")

    def ways_out(self) -> tuple[str, ...]:
        ask = f"server.{self.namespace}.svc.cluster.local"
        return (
            *self.ways_to_server(),
            f"nslookup {ask} {self.dns}",
            f"nc {self.dns} 53 -e true",
            f"nc {self.api} 443 -e true",
        )

    def reaches(self, pod: str, command: str) -> bool:
        try:
            kubectl.execute(self.namespace, pod, "sh", "-c", f"timeout 2 {command}")
        except kubectl.Failed:
            return False
        return True

    def comes_to_reach(self, pod: str, command: str) -> None:
        """A new Service refuses for a moment, policy or not: only after a success is a refusal enforcement."""
        kubectl.until(lambda: self.reaches(pod, command), f"{pod}: {command}", seconds=15)

    def comes_to_lose(self, pod: str, command: str) -> None:
        kubectl.until(lambda: not self.reaches(pod, command), f"{pod}: {command} fails", seconds=15)


@pytest.fixture
def network(new_namespace: Callable[[str], str]) -> Network:
    namespace = new_namespace("network")
    serve = f"echo served >/tmp/index.html; exec httpd -f -p {_PORT} -h /tmp"
    service: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server", "namespace": namespace},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": _PORT}]},
    }
    names = ("server", "friend", "stranger")
    started = [pods.pod(namespace, name, *(("sh", "-c", serve) if name == "server" else ())) for name in names]
    kubectl.apply(service, *started)
    for name in names:
        kubectl.wait(namespace, f"pod/{name}", "condition=Ready")
    server = kubectl.required("pod", "server", namespace)["status"]["podIP"]
    dns = kubectl.required("service", "kube-dns", "kube-system")["spec"]["clusterIP"]
    api = kubectl.required("service", "kubernetes")["spec"]["clusterIP"]
    return Network(namespace, server, dns, api)


def test_ingress_is_open_to_those_named_alone(network: Network) -> None:
    for pod in ("friend", "stranger"):
        for way in network.ways_to_server():
            network.comes_to_reach(pod, way)
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": _PORT}]}
    kubectl.apply(_policy(network.namespace, "server", policyTypes=["Ingress"], ingress=[rule]))
    for way in network.ways_to_server():
        network.comes_to_lose("stranger", way)
        assert network.reaches("friend", way)
    kubectl.run("-n", network.namespace, "delete", "networkpolicy", "server")
    for way in network.ways_to_server():
        network.comes_to_reach("stranger", way)


def test_egress_denied_reaches_no_pod_no_name_and_no_api(network: Network) -> None:
    for pod in ("friend", "stranger"):
        for way in network.ways_out():
            network.comes_to_reach(pod, way)
    kubectl.apply(_policy(network.namespace, "stranger", policyTypes=["Egress"]))
    for way in network.ways_out():
        network.comes_to_lose("stranger", way)
        assert network.reaches("friend", way)


def test_what_lies_outside_the_cluster_is_denied_too(node: Cluster, network: Network) -> None:
    def reached() -> bool:
        command = ["curl", "--silent", "--fail", "--max-time", "2", f"http://{network.address}:{_PORT}/"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    kubectl.until(reached, "this machine reaches the server")
    kubectl.apply(_policy(network.namespace, "server", policyTypes=["Ingress"]))
    kubectl.until(lambda: not reached(), "this machine no longer reaches the server")


def test_a_pod_escapes_no_policy_while_it_starts(network: Network) -> None:
    attempt = f"timeout 1 wget -q -O- http://{network.address}:{_PORT}/"
    hasty: dict[str, Any] = {"restartPolicy": "Never"}
    loop = f"for i in 1 2 3 4 5; do {attempt} && exit 0; done; exit 1"
    network.comes_to_reach("friend", network.ways_to_server()[0])
    kubectl.apply(_policy(network.namespace, "denied", policyTypes=["Egress"]))
    names = [f"denied-{i}" for i in range(5)] + ["free"]
    for name in names:
        started = pods.pod(network.namespace, name, "sh", "-c", loop, **hasty)
        started["metadata"]["labels"]["app"] = name.partition("-")[0]
        kubectl.apply(started)
    for name in names:
        phase = "Succeeded" if name == "free" else "Failed"
        kubectl.wait(network.namespace, f"pod/{name}", f"jsonpath={{.status.phase}}={phase}")
