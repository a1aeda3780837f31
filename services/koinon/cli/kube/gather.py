"""What a look at a hospital sees: objects of both namespaces and the agent's own word, each once, none of it secret."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from koinon.cli.kube.hospital import Hospital
from koinon.domain.errors import KoinonError

Objects = Sequence[dict[str, Any]]
HERE = ("pods", "events", "statefulsets", "deployments", "persistentvolumeclaims", "configmaps")
WORK = ("pods", "events", "rayclusters.ray.io", "persistentvolumeclaims", "networkpolicies", "resourcequotas")
_KUBERAY = "koinon-kuberay"  # the chart's RoleBinding for KubeRay's account


@dataclass(frozen=True)
class Picture:
    """`here` and `work` are the objects of the agent's and the clusters' namespace by kind; `troubles` are lists that
    could not be had, with the reason; `secrets` are names alone; `intruder` is KubeRay's account if it may start pods
    beside the agent."""

    hospital: Hospital
    grants: Objects
    here: dict[str, Objects] = field(default_factory=dict)
    work: dict[str, Objects] = field(default_factory=dict)
    secrets: frozenset[str] | None = None
    agent: dict[str, Any] | None = None
    troubles: dict[str, str] = field(default_factory=dict)
    intruder: str = ""

    def of(self, component: str) -> Objects:
        """Pods of a component of the chart: agent, operator."""
        pods = self.here.get("pods", ())
        return [pod for pod in pods if _labels(pod).get("app.kubernetes.io/component") == component]

    def of_grant(self, grant: dict[str, Any], kind: str) -> Objects:
        """What is in the work namespace of a Grant's project."""
        mark = grant["spec"]["manifest"][:12]
        return [found for found in self.work.get(kind, ()) if _labels(found).get("koinon.dev/project") == mark]

    def warnings_about(self, name: str) -> list[str]:
        """Messages of warning events about an object or those whose names start with its, newest last."""
        events = [*self.here.get("events", ()), *self.work.get("events", ())]
        found = [
            event
            for event in events
            if event.get("type") == "Warning" and str(event["involvedObject"].get("name", "")).startswith(name)
        ]
        found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
        return [str(event.get("message", "")) for event in found]


def look(hospital: Hospital) -> Picture:
    """Asks for everything side by side; what cannot be had is a trouble, not an error."""
    troubles: dict[str, str] = {}
    kubectl = hospital.kubectl

    def listed(place: str, kind: str) -> Objects:
        try:
            return kubectl.list(kind, namespace=place)
        except KoinonError as error:
            troubles[f"{kind} of {place}"] = error.what
            return ()

    def secret_names() -> frozenset[str] | None:
        try:
            text = kubectl.run("get", "secrets", "-o", "name")
        except KoinonError as error:
            troubles["secrets"] = error.what
            return None
        return frozenset(line.partition("/")[2] for line in text.split())

    def agent() -> dict[str, Any] | None:
        try:
            return hospital.status()
        except (KoinonError, ValueError) as error:
            troubles["agent"] = str(error)
            return None

    def intruder() -> str:
        try:
            bound = kubectl.get("rolebinding", _KUBERAY, namespace=hospital.work)["subjects"][0]
            account = f"{bound['namespace']}:{bound['name']}"
            return account if kubectl.may(account, "create", "pods") else ""
        except KoinonError:  # it is bound by other means, or this is not for everybody to ask
            return ""

    with ThreadPoolExecutor(8) as threads:
        grants = threads.submit(hospital.grants)
        here = {kind: threads.submit(listed, hospital.namespace, kind) for kind in HERE}
        work = {kind: threads.submit(listed, hospital.work, kind) for kind in WORK}
        secrets, word, intruding = threads.submit(secret_names), threads.submit(agent), threads.submit(intruder)
        return Picture(
            hospital,
            grants.result(),
            {kind: found.result() for kind, found in here.items()},
            {kind: found.result() for kind, found in work.items()},
            secrets.result(),
            word.result(),
            troubles,
            intruding.result(),
        )


def _labels(found: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = found["metadata"].get("labels", {})
    return labels
