"""Ray pods: Pod Security "restricted", no way out, data read-only and only after the denial is proven."""

from pathlib import Path
from typing import Any

import pytest

from koinon.agent import sandbox
from koinon.domain.grant import Resources
from koinon_operator.objects import pods, raycluster
from tests.unit.operator import samples

GRANTED = Resources(cpus=3, memory=8 * 2**30, disk=2**31, min_workers=1, max_workers=4, gpus=2)


@pytest.fixture(params=["head", "worker"])
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    made: dict[str, Any] = pods.template(samples.ray(GRANTED), request.param)["spec"]
    return made


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec["initContainers"], *spec["containers"]]


def test_every_container_is_restricted(spec: dict[str, Any]) -> None:
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(spec):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert "privileged" not in context


def test_no_host_no_token_no_names(spec: dict[str, Any]) -> None:
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["dnsPolicy"] == "None"
    assert spec["dnsConfig"] == {"nameservers": ["127.0.0.1"]}
    (alias,) = spec["hostAliases"]
    assert alias == {"ip": "10.96.1.2", "hostnames": ["p-0123456789ab-head-svc.lyon-work.svc.cluster.local"]}


def test_the_denial_comes_first_and_sees_no_volume(spec: dict[str, Any]) -> None:
    (denial,) = spec["initContainers"]
    assert denial["name"] == "denial"
    assert denial["command"] == ["python", "-m", "koinon.trainer.denial"]
    assert denial["image"] == spec["containers"][0]["image"]
    assert "volumeMounts" not in denial
    (variable,) = denial["env"]
    assert denial["args"] == [f"$({variable['name']})"]
    assert variable["valueFrom"]["configMapKeyRef"] == {"name": "koinon-denial", "key": "targets"}


def test_only_the_granted_data_set_is_mounted_and_nothing_of_it_can_be_written() -> None:
    datasets = [
        {"name": "heart", "claimName": "claim-a", "path": "heart.csv", "subPath": "studies/heart"},
        {"name": "lungs", "claimName": "claim-b", "path": "lungs.csv"},
    ]
    spec = pods.template(samples.ray(datasets=datasets), "head")["spec"]
    claims = [volume for volume in spec["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == [{"name": "data", "persistentVolumeClaim": {"claimName": "claim-a", "readOnly": True}}]
    mounts = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "data"]
    assert mounts == [{"name": "data", "mountPath": "/data/heart", "readOnly": True, "subPath": "studies/heart"}]


def test_what_can_be_written_is_scratch_with_a_bound(spec: dict[str, Any]) -> None:
    mounts = spec["containers"][0]["volumeMounts"]
    writable = {mount["name"]: mount["mountPath"] for mount in mounts if mount["name"] != "data"}
    assert writable == {"shared-mem": "/dev/shm", "tmp": "/tmp", "home": pods.HOME}
    for volume in spec["volumes"]:
        if volume["name"] in writable:
            assert int(volume["emptyDir"]["sizeLimit"]) <= max(GRANTED.disk, GRANTED.memory // 2)


def test_resources_are_the_grants(spec: dict[str, Any]) -> None:
    given = spec["containers"][0]["resources"]
    assert given["limits"] == {
        "cpu": "3",
        "memory": str(8 * 2**30),
        "ephemeral-storage": str(2**31),
        "nvidia.com/gpu": "2",
    }
    assert given["requests"]["memory"] == given["limits"]["memory"]
    assert given["requests"]["cpu"] == "3000m"


def test_a_site_may_reserve_less_than_it_grants() -> None:
    spec = pods.template(samples.ray(GRANTED, requestPercent=10), "head")["spec"]
    requests = spec["containers"][0]["resources"]["requests"]
    assert (requests["cpu"], requests["ephemeral-storage"]) == ("300m", str(2**31 // 10))
    assert requests["memory"] == str(8 * 2**30)


def test_no_gpu_unless_granted() -> None:
    ray = samples.ray()
    assert "nvidia.com/gpu" not in str(pods.template(ray, "head"))
    assert raycluster.build(ray, workers=0, token="t")["spec"]["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"


def test_research_code_finds_the_environment_of_the_embedded_trainer(tmp_path: Path) -> None:
    """Bit for bit the same model here and there needs the same threads, hash seed and flags."""
    here = sandbox.environment(tmp_path, cpus=3)
    there = {entry["name"]: entry.get("value") for entry in pods.environment(samples.ray(GRANTED))}
    of_the_machine = {"PATH", "LANG", "VIRTUAL_ENV", "PYTHONPATH", "HOME", "TMPDIR", "RAY_TMPDIR"}
    assert {name: there.get(name) for name in here if name not in of_the_machine} == {
        name: value for name, value in here.items() if name not in of_the_machine
    }


def test_the_token_is_a_reference_to_the_projects_own_key() -> None:
    found = {entry["name"]: entry for entry in pods.environment(samples.ray())}
    assert found["RAY_AUTH_MODE"]["value"] == "token"
    assert found["RAY_AUTH_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "koinon-ray", "key": "0123456789ab"}}


def test_registry_secrets_nodes_and_taints_are_the_sites() -> None:
    given: dict[str, Any] = {
        "imagePullSecrets": [{"name": "pull"}],
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    spec = pods.template(samples.ray(**given), "head")["spec"]
    assert {name: spec[name] for name in given} == given
    assert not set(given) & set(pods.template(samples.ray(), "head")["spec"])
