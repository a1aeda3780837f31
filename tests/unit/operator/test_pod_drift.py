"""A Ray pod is what its template says: what KubeRay and admission add is no difference, all else is one."""

from typing import Any

import pytest

from koinon.domain.grant import Resources
from koinon_operator import pod_drift
from koinon_operator.objects import pods, raycluster
from tests.unit.operator import samples

RAY = samples.ray(
    Resources(min_workers=1, max_workers=2),
    datasets=[{"name": "heart", "claimName": "all", "path": "heart.csv", "subPath": "heart"}],
)
CLUSTER = raycluster.build(RAY, workers=1, token="t")


@pytest.mark.parametrize("node", ["head", "worker"])
def test_a_pod_as_kuberay_makes_it_is_as_wanted(node: str) -> None:
    pod = samples.pod(CLUSTER, node)
    assert pod_drift.differences(raycluster.template_of(CLUSTER, node), pod) == []


def test_a_pod_whose_quantities_the_api_server_wrote_anew_is_as_wanted() -> None:
    ray = samples.ray(Resources(memory=4_000_000_000, cpus=2))
    cluster = raycluster.build(ray, workers=0, token="t")
    pod = samples.pod(cluster, "head")
    pod["spec"]["containers"][0]["resources"]["limits"]["memory"] = "4G"
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    pod["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = "2G"
    assert pod_drift.differences(raycluster.template_of(cluster, "head"), pod) == []


def _main(spec: Any) -> Any:
    return spec["containers"][0]


def _denial(spec: Any) -> Any:
    return spec["initContainers"][0]


def test_what_kubelet_and_admission_add_is_no_difference() -> None:
    pod = samples.pod(CLUSTER, "head")
    for section in (pod["spec"]["containers"], pod["spec"]["initContainers"]):
        for container in section:
            container |= {"terminationMessagePath": "/dev/termination-log"}
            container["securityContext"]["seccompProfile"] = {"type": "RuntimeDefault"}
    pod["spec"] |= {"nodeName": "n1", "priority": 0, "preemptionPolicy": "Never", "serviceAccount": "koinon-ray"}
    pod["spec"]["tolerations"] = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]
    pod["spec"]["securityContext"] |= {"fsGroup": 1, "seLinuxOptions": {"level": "s0:c1"}}
    assert pod_drift.differences(raycluster.template_of(CLUSTER, "head"), pod) == []


def test_only_a_worker_waits_for_the_head() -> None:
    pod = samples.pod(CLUSTER, "head")
    pod["spec"]["initContainers"] = samples.pod(CLUSTER, "worker")["spec"]["initContainers"]
    assert pod_drift.differences(raycluster.template_of(CLUSTER, "head"), pod) == ["spec.initContainers"]


OPENED: dict[str, Any] = {
    "hostNetwork": lambda spec: spec.update(hostNetwork=True),
    "hostPID": lambda spec: spec.update(hostPID=True),
    "a debugger": lambda spec: spec.update(ephemeralContainers=[{"name": "debugger"}]),
    "names": lambda spec: spec.update(dnsPolicy="ClusterFirst"),
    "a name server": lambda spec: spec["dnsConfig"].update(nameservers=["10.96.0.10"]),
    "a token": lambda spec: spec.pop("automountServiceAccountToken"),
    "another account": lambda spec: spec.update(serviceAccountName="default"),
    "no denial": lambda spec: spec["initContainers"].pop(0),
    "denial later": lambda spec: spec["initContainers"].reverse(),
    "denial of nothing": lambda spec: spec["initContainers"][0].update(args=[]),
    "a sidecar": lambda spec: spec["containers"].append({"name": "sidecar"}),
    "another init container": lambda spec: spec["initContainers"].append({"name": "more"}),
    "another volume": lambda spec: spec["volumes"].append({"name": "more", "hostPath": {"path": "/"}}),
    "data for writing": lambda spec: spec["volumes"][3]["persistentVolumeClaim"].update(readOnly=False),
    "other data": lambda spec: spec["volumes"][3]["persistentVolumeClaim"].update(claimName="lungs"),
    "another image": lambda spec: spec["containers"][0].update(image="other"),
    "root": lambda spec: spec["containers"][0]["securityContext"].update(runAsNonRoot=False),
    "privileges": lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities": lambda spec: spec["containers"][0]["securityContext"]["capabilities"].update(drop=[]),
    "another token": lambda spec: _main(spec)["env"][-2]["valueFrom"]["secretKeyRef"].update(key="other"),
    "all of the volume": lambda spec: _main(spec)["volumeMounts"].append({"name": "data", "mountPath": "/all"}),
    "no subPath": lambda spec: _main(spec)["volumeMounts"][-1].pop("subPath"),
    "data in denial": lambda spec: _denial(spec).update(volumeMounts=[{"name": "data", "mountPath": "/data"}]),
    "denial beside the rest": lambda spec: _denial(spec).update(restartPolicy="Always"),
    "a second name server": lambda spec: spec["dnsConfig"]["nameservers"].append("10.96.0.10"),
    "another host's name": lambda spec: spec["hostAliases"].append({"ip": "203.0.113.1", "hostnames": ["hub"]}),
    "more capabilities": lambda spec: _main(spec)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "privileged": lambda spec: _main(spec)["securityContext"].update(privileged=True),
    "no seccomp": lambda spec: _main(spec)["securityContext"].update(seccompProfile={"type": "Unconfined"}),
    "user 0": lambda spec: _main(spec)["securityContext"].update(runAsUser=0),
    "a Secret": lambda spec: _main(spec).update(envFrom=[{"secretRef": {"name": "other"}}]),
    "a Secret's key": lambda spec: _main(spec)["env"].append(
        {"name": "RAY_MORE", "valueFrom": {"secretKeyRef": {"name": "koinon-ray", "key": "other"}}}
    ),
    "a variable of Python": lambda spec: _main(spec)["env"].append({"name": "PYTHONSTARTUP", "value": "/tmp/x"}),
    "a variable twice": lambda spec: _main(spec)["env"].append({"name": "RAY_AUTH_MODE", "value": "none"}),
    "a port of the node": lambda spec: _main(spec)["ports"][0].update(hostPort=8080),
    "a hook": lambda spec: _main(spec).update(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}),
    "another command": lambda spec: _main(spec).update(command=["sh", "-c", "evil"], args=[]),
    "a second command": lambda spec: _main(spec).update(args=["ulimit -n 65536; ray start --block; evil"]),
    "the waiting one's image": lambda spec: spec["initContainers"][1].update(image="other"),
    "the waiting one's mounts": lambda spec: spec["initContainers"][1].update(
        volumeMounts=[{"name": "data", "mountPath": "/all"}]
    ),
    "the waiting one stays": lambda spec: spec["initContainers"][1].update(restartPolicy="Always"),
    "scratch that is the node's": lambda spec: spec["volumes"][2].update(hostPath={"path": "/"}),
}


@pytest.mark.parametrize("change", OPENED.values(), ids=OPENED)
def test_a_pod_that_opens_anything_is_not(change: Any) -> None:
    pod = samples.pod(CLUSTER, "worker")
    change(pod["spec"])
    assert pod_drift.differences(raycluster.template_of(CLUSTER, "worker"), pod)


def test_the_sample_pods_are_of_the_templates_they_say() -> None:
    assert pods.template(RAY, "head")["spec"]["containers"][0]["name"] == "ray-head"
    assert samples.pod(CLUSTER, "worker")["spec"]["initContainers"][1]["name"] == "wait-gcs-ready"
