"""Isolation, by trying: what research code, another hospital and the agent can reach, on the cluster as installed."""

import json
from collections.abc import Iterator

import pytest

from koinon.client.projects import Project
from tests.cluster import kubectl, pods
from tests.cluster.federation.league import SITES, League

METADATA = "169.254.169.254:80"
# Connects to each address for three seconds, by the code that a worker has; prints those that let it.
PROBE = """
import json, socket, sys
open_ = []
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
        open_.append(target)
    except OSError:
        pass
try:
    socket.getaddrinfo("kubernetes.default.svc.cluster.local", 443)
    open_.append("dns")
except OSError:
    pass
print(json.dumps(open_))
"""


def probe(namespace: str, pod: str, container: str, targets: list[str]) -> list[str]:
    command = ["-n", namespace, "exec", pod, "-c", container, "--", "python", "-c", PROBE, *targets]
    found: list[str] = json.loads(kubectl.run(*command, seconds=120))
    return found


@pytest.fixture(scope="module")
def heads(federation: League, project: Project) -> dict[str, kubectl.Object]:
    mark = f"koinon.dev/project={project.hash[:12]}"
    return {site: kubectl.find("pods", federation.work(site), mark)[0] for site in SITES}


@pytest.fixture(scope="module")
def exits(federation: League, heads: dict[str, kubectl.Object]) -> dict[str, str]:
    """By what: addresses that somebody serves, as the tests from this machine see."""
    api = kubectl.required("service", "kubernetes")["spec"]["clusterIP"]
    dns = kubectl.find("services", "kube-system", "k8s-app=kube-dns")[0]["spec"]["clusterIP"]
    hub = kubectl.required("pod", "hub-koinon-hub-0", federation.hub_namespace)["status"]["podIP"]
    agent = kubectl.required("pod", "koinon-agent-0", federation.home(SITES[0]))["status"]["podIP"]
    others = heads[SITES[1]]["status"]["podIP"]
    return {
        "hub": federation.url.removeprefix("https://"),
        "hub's pod": f"{hub}:8443",
        "API server": f"{api}:443",
        "DNS": f"{dns}:53",
        "metadata": METADATA,
        "own agent": f"{agent}:8472",
        "another hospital's Ray": f"{others}:8265",
        "another hospital's trainer": f"{others}:8471",
    }


def test_a_worker_reaches_nothing(federation: League, heads: dict[str, kubectl.Object], exits: dict[str, str]) -> None:
    pod = heads[SITES[0]]["metadata"]["name"]
    own = f"{heads[SITES[0]]['status']['podIP']}:8265"
    found = probe(federation.work(SITES[0]), pod, "ray-head", [*exits.values(), own])
    assert found == [own]  # the probe sees what is open


def test_the_agent_reaches_what_its_rule_names(
    federation: League, heads: dict[str, kubectl.Object], exits: dict[str, str]
) -> None:
    own = heads[SITES[0]]["status"]["podIP"]
    allowed = [exits["hub"], exits["DNS"], f"{own}:8265", f"{own}:8471"]
    denied = [exits[name] for name in ("hub's pod", "API server", "metadata", "another hospital's Ray")]
    found = probe(federation.home(SITES[0]), "koinon-agent-0", "agent", [*allowed, *denied, f"{own}:6379"])
    assert found == [*allowed, "dns"]


@pytest.fixture
def stranger(federation: League) -> Iterator[tuple[str, str]]:
    """A pod of the hub's namespace, which no rule of a hospital names."""
    namespace, name = federation.hub_namespace, "stranger"
    kubectl.apply(pods.pod(namespace, name))
    kubectl.wait(namespace, f"pod/{name}", "condition=Ready")
    yield namespace, name
    kubectl.run("-n", namespace, "delete", "pod", name, "--wait=false")


def test_from_elsewhere_neither_ray_nor_trainer_nor_agent(
    stranger: tuple[str, str], heads: dict[str, kubectl.Object], exits: dict[str, str]
) -> None:
    own = heads[SITES[0]]["status"]["podIP"]
    for target in (f"{own}:8265", f"{own}:8471", f"{own}:6379", exits["own agent"]):
        host, _, port = target.rpartition(":")
        with pytest.raises(kubectl.Failed):
            kubectl.execute(*stranger, "timeout", "3", "nc", "-z", host, port)


def test_ray_refuses_without_its_token(federation: League, heads: dict[str, kubectl.Object]) -> None:
    """Asked from the agent, which may connect, but here brings no token or a wrong one."""
    own = heads[SITES[0]]["status"]["podIP"]
    ask = (
        "import sys, urllib.request, urllib.error\n"
        "def status(url, headers):\n"
        "    try: return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10).status\n"
        "    except urllib.error.HTTPError as error: return error.code\n"
        "for url in sys.argv[1:]:\n"
        "    print(status(url, {}), status(url, {'Authorization': 'Bearer ' + 'ab' * 32}))\n"
    )
    urls = [f"http://{own}:8265/api/jobs/", f"http://{own}:8471/v1/health"]
    command = ["-n", federation.home(SITES[0]), "exec", "koinon-agent-0", "--", "python", "-c", ask, *urls]
    answers = kubectl.run(*command).split()
    assert set(answers) <= {"401", "403"}
    assert len(answers) == 4


def test_every_pod_runs_under_pod_security_restricted(federation: League, project: Project) -> None:
    """The namespaces enforce it, and every container says so itself."""
    namespaces = [federation.hub_namespace, *(f(site) for site in SITES for f in (federation.home, federation.work))]
    for namespace in namespaces:
        kubectl.run("label", "--overwrite", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        for pod in kubectl.find("pods", namespace):
            for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False, pod["metadata"]["name"]
                assert context["readOnlyRootFilesystem"] is True, pod["metadata"]["name"]
                assert context["capabilities"] == {"drop": ["ALL"]}, pod["metadata"]["name"]


def test_no_pod_of_research_code_holds_a_service_account_token(heads: dict[str, kubectl.Object]) -> None:
    for pod in heads.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not any("projected" in volume for volume in pod["spec"]["volumes"])
