"""The template of a Ray pod: no name is resolved, no token is mounted, nothing is written but scratch, and the
container that sees the data starts only after another one, which does not, proved that it reaches nothing.
"""

from dataclasses import dataclass

from koinon.domain.grant import Resources
from koinon_operator.documents import Dataset, Hospital
from koinon_operator.kinds import Object
from koinon_operator.names import (
    ACCOUNT,
    COMPONENT,
    DASHBOARD_AGENT_PORT,
    DENIAL,
    DENIAL_CONTAINER,
    HEAD,
    METRICS_PORT,
    NODE,
    PORTS,
    RAY_SECRET,
    cluster,
    labels,
)
from koinon_operator.objects.bounds import GPU
from koinon_operator.objects.denial import KEY

USER = 65532
HOME = "/home/koinon"
_GRACE_SECONDS = 2
_TARGETS = "KOINON_DENIAL_TARGETS"


@dataclass(frozen=True)
class Ray:
    """All that a project's Ray pods are made of. `address`: of the head's Service."""

    project: str
    hospital: Hospital
    dataset: Dataset
    resources: Resources
    address: str
    domain: str


def template(ray: Ray, node: str) -> Object:
    """Pod template of a head or a worker, as KubeRay takes it."""
    hospital = ray.hospital
    spec: Object = {
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "hostAliases": [{"ip": ray.address, "hostnames": [head_name(ray)]}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_denial(hospital.image)],
        "containers": [_ray(ray, node)],
        "volumes": _volumes(ray),
    }
    if hospital.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in hospital.pull_secrets]
    if hospital.node_selector:
        spec["nodeSelector"] = dict(hospital.node_selector)
    if hospital.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in hospital.tolerations]
    return {"metadata": {"labels": {**labels(ray.project), COMPONENT: "ray", NODE: node}}, "spec": spec}


def head_name(ray: Ray) -> str:
    """The name by which KubeRay lets workers look for the head."""
    return f"{cluster(ray.project)}-head-svc.{ray.hospital.work}.svc.{ray.domain}"


def _secure() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def _denial(image: str) -> Object:
    """Tries all targets, and ends well only if none answers. It mounts nothing."""
    small = {"cpu": "200m", "memory": "128Mi"}
    return {
        "name": DENIAL_CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "koinon.trainer.denial"],
        "args": [f"$({_TARGETS})"],
        "env": [{"name": _TARGETS, "valueFrom": {"configMapKeyRef": {"name": DENIAL, "key": KEY}}}],
        "resources": {"limits": small, "requests": {"cpu": "10m", "memory": "128Mi"}},
        "securityContext": _secure(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _ray(ray: Ray, node: str) -> Object:
    dataset = ray.dataset
    data: Object = {"name": "data", "mountPath": f"/data/{dataset.name}", "readOnly": True}
    if dataset.sub_path:
        data["subPath"] = dataset.sub_path
    ports = PORTS if node == HEAD else {"metrics": METRICS_PORT}
    probe: Object = {"httpGet": {"path": "/api/local_raylet_healthz", "port": DASHBOARD_AGENT_PORT}}
    return {
        "name": f"ray-{node}",
        "image": ray.hospital.image,
        "imagePullPolicy": "IfNotPresent",
        "env": environment(ray),
        "ports": [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in ports.items()],
        "resources": _resources(ray),
        "securityContext": _secure(),
        # KubeRay's own probes ask after 10 s for the first time, and with programs that an image need not have.
        "readinessProbe": {**probe, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {
            **probe, "initialDelaySeconds": 60, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 12,
        },
        "volumeMounts": [
            {"name": "shared-mem", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "home", "mountPath": HOME},
            data,
        ],
    }  # fmt: skip


def environment(ray: Ray) -> list[Object]:
    """What the embedded trainer gets from its agent, so that the same job gives the same bits here and there."""
    threads = str(ray.resources.cpus)
    values = {
        "HOME": HOME,
        "TMPDIR": "/tmp",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_register_timeout_seconds": "180",
        "RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper": "1",
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONSAFEPATH": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    key = {"secretKeyRef": {"name": RAY_SECRET, "key": ray.project}}
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        {"name": "RAY_AUTH_TOKEN", "valueFrom": key},
    ]


def _resources(ray: Ray) -> Object:
    given, percent = ray.resources, ray.hospital.request_percent
    limits = {"cpu": str(given.cpus), "memory": str(given.memory), "ephemeral-storage": str(given.disk)}
    requests = {
        "cpu": f"{given.cpus * percent * 10}m",
        "memory": str(given.memory),
        "ephemeral-storage": str(given.disk * percent // 100),
    }
    gpus = {GPU: str(given.gpus)} if given.gpus else {}
    return {"limits": limits | gpus, "requests": requests | gpus}


def _volumes(ray: Ray) -> list[Object]:
    disk, memory = str(ray.resources.disk), str(ray.resources.memory // 2)
    return [
        {"name": "shared-mem", "emptyDir": {"medium": "Memory", "sizeLimit": memory}},
        {"name": "tmp", "emptyDir": {"sizeLimit": disk}},
        {"name": "home", "emptyDir": {"sizeLimit": disk}},
        {"name": "data", "persistentVolumeClaim": {"claimName": ray.dataset.claim, "readOnly": True}},
    ]
