"""The cluster does what the other tests rely on; the test node leaves nothing behind."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import kubectl, kuberay, leftovers, lifecycle, pods, schemas
from tests.cluster.conftest import Cluster, lacking
from tests.cluster.kubectl import Object
from tests.cluster.rendered.render import CHARTS


def _ready(kind: str, item: Object) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in item["status"].get("conditions", []))


def test_a_node_is_ready_and_every_deployment_available(cluster: Cluster) -> None:
    assert any(_ready("Ready", node) for node in kubectl.find("node"))
    for namespace in {"kube-system", kuberay.NAMESPACE}:
        assert all(_ready("Available", deployment) for deployment in kubectl.find("deployment", namespace))


def test_pod_security_restricted_is_enforced(new_namespace: Callable[[str], str]) -> None:
    namespace = new_namespace("security")
    with pytest.raises(kubectl.Failed, match="violates PodSecurity"):
        kubectl.apply(pods.pod(namespace, "root", container={"securityContext": {"privileged": True}}))
    kubectl.apply(pods.pod(namespace, "decent"))
    kubectl.wait(namespace, "pod/decent", "condition=Ready")


def test_a_volume_outlives_its_pod(new_namespace: Callable[[str], str]) -> None:
    namespace = new_namespace("volume")
    claim: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    with_volume = {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
    }
    kubectl.apply(claim, pods.pod(namespace, "writer", **with_volume))
    kubectl.wait(namespace, "pod/writer", "condition=Ready")
    kubectl.execute(namespace, "writer", "sh", "-c", "echo kept >/data/file")
    kubectl.run("-n", namespace, "delete", "pod", "writer")
    kubectl.apply(pods.pod(namespace, "reader", **with_volume))
    kubectl.wait(namespace, "pod/reader", "condition=Ready")
    assert kubectl.execute(namespace, "reader", "cat", "/data/file") == "kept\n"


def test_names_of_services_resolve_and_no_others(node: Cluster, new_namespace: Callable[[str], str]) -> None:
    namespace = new_namespace("dns")
    kubectl.apply(pods.pod(namespace, "asks"))
    kubectl.wait(namespace, "pod/asks", "condition=Ready")
    api = kubectl.required("service", "kubernetes")
    answer = kubectl.execute(namespace, "asks", "nslookup", "kubernetes.default.svc.cluster.local")
    assert api["spec"]["clusterIP"] in answer
    with pytest.raises(kubectl.Failed):
        kubectl.execute(namespace, "asks", "nslookup", "example.org")


def _cluster(namespace: str) -> Object:
    """A Ray cluster's request; the image has no Ray, since only KubeRay's deed is looked at."""
    spec = pods.pod(namespace, "head")["spec"]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "tried", "namespace": namespace},
        "spec": {"headGroupSpec": {"rayStartParams": {}, "template": {"spec": spec}}},
    }


def test_kuberay_starts_clusters_only_where_it_is_bound(new_namespace: Callable[[str], str]) -> None:
    watched, other = new_namespace("watched"), new_namespace("other")
    kuberay.bind(watched)
    kuberay.watch(watched)
    try:
        kubectl.apply(_cluster(other), _cluster(watched))
        kubectl.until(lambda: kubectl.find("pod", watched), "a head pod in the namespace that KubeRay watches", 60)
        assert not kubectl.find("pod", other)
    finally:
        kuberay.unwatch(watched)


def test_kuberay_has_no_right_elsewhere(node: Cluster, new_namespace: Callable[[str], str]) -> None:
    bound, other = new_namespace("bound"), new_namespace("other")
    kuberay.bind(bound)
    account = kuberay.account()
    for verb, resource in (("create", "pods"), ("get", "secrets"), ("list", "rayclusters.ray.io")):
        assert kubectl.may(account, verb, resource, bound)
        assert not kubectl.may(account, verb, resource, other)
        assert not kubectl.may(account, verb, resource)
    for resource in ("roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io", "serviceaccounts"):
        assert not kubectl.may(account, "create", resource, bound)


def test_kubeconform_knows_the_kinds_of_this_cluster(cluster: Cluster, tmp_path: Path) -> None:
    command = ["kubeconform", "-strict", "-schema-location", schemas.write(tmp_path / "schemas"), "-"]

    def conforms(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    manifests = Path(__file__).parent / "node" / "manifests"
    for path in (*manifests.glob("*.yaml"), CHARTS / "koinon-site" / "files" / "kuberay.yaml"):
        assert conforms(path.read_text()).returncode == 0, conforms(path.read_text()).stdout
    deployment = (manifests / "kuberay.yaml").read_text()
    for wrong, place in ((deployment.replace("strategy:", "strategem:"), "strategem"), ("kind: Grant\n", "apiVersion")):
        refused = conforms(wrong)
        assert refused.returncode == 1
        assert place in refused.stdout + refused.stderr


def test_a_killed_kubelet_comes_back_and_its_pods_never_noticed(
    node: Cluster, new_namespace: Callable[[str], str]
) -> None:
    namespace = new_namespace("kubelet")
    kubectl.apply(pods.pod(namespace, "runs"))
    kubectl.wait(namespace, "pod/runs", "condition=Ready")
    lifecycle.restart("kubelet")
    kubectl.apply(pods.pod(namespace, "next"))
    kubectl.wait(namespace, "pod/next", "condition=Ready")
    runs = kubectl.required("pod", "runs", namespace)
    assert runs["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_node_can_write_nothing_outside_its_cache(node: Cluster) -> None:
    inside = ["nsenter", "--target", str(lifecycle.process()), "--mount", "--root", "--wd=/"]
    for folder in ("/etc", "/usr/local", "/var", "/root"):
        done = subprocess.run([*inside, "touch", f"{folder}/left"], capture_output=True, text=True, check=False)
        assert "Read-only file system" in done.stderr


def test_down_leaves_nothing(node: Cluster) -> None:
    before = node.before
    if before is None:
        lacking("the node was up before these tests began, or is to stay")
        return
    during = leftovers.traces()
    seen = {kind for kind, entries in leftovers.added(before, during).items() if entries}
    assert seen >= {"namespace", "process", "link", "route", "cgroup"}  # they would be seen if they stayed
    started = time.monotonic()
    lifecycle.stop()
    print(f"down: {time.monotonic() - started:.1f} s")
    left = leftovers.left(before, during, leftovers.traces())
    while left and time.monotonic() < started + 15:  # what other programs make for a moment
        time.sleep(0.5)
        left = leftovers.left(before, during, leftovers.traces())
    assert not left
