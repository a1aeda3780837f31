"""One hospital as its API server shows it: the Site of a namespace, its Grants, and its agent's own word."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from koinon.cli.kube.kubectl import Kubectl
from koinon.domain import errors
from koinon.domain.manifest import Manifest

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="The hospital's namespace; else the context's.")
]
Context = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig; else the current one.")]
AGENT = "app.kubernetes.io/component=agent"
STATUS_PORT = 8472
_PLAN = "koinon-site"  # the ConfigMap in which the chart writes the Site down


@dataclass(frozen=True)
class Hospital:
    kubectl: Kubectl
    namespace: str
    object: dict[str, Any]  # the Site
    declared: bool = True  # otherwise the Site is not there yet, and `object` is what the chart will make of it

    @property
    def site(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def root(self) -> str:
        return str(self.object["spec"]["root"])

    @property
    def work(self) -> str:
        """The namespace of the Ray clusters."""
        return str(self.object["spec"]["workNamespace"])

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(entry["name"] for entry in self.object["spec"].get("datasets", ()))

    def grants(self) -> Sequence[dict[str, Any]]:
        return self.kubectl.list("grants.koinon.dev")

    def grant(self, project: str) -> dict[str, Any]:
        """The newest Grant of a project: by its own name, the project's, or the manifest's hash. Raises NotFound."""
        found = [
            item
            for item in self.grants()
            if project in (item["metadata"]["name"], project_name(item))
            or (len(project) >= 4 and item["spec"]["manifest"].startswith(project))
        ]
        if not found:
            listed = ", ".join(sorted(item["metadata"]["name"] for item in self.grants())) or "none"
            raise errors.NotFound(
                f"{self.site} has not granted {project}.", where=f"namespace {self.namespace}", todo=f"It has {listed}."
            )
        return max(found, key=lambda item: str(item["metadata"]["creationTimestamp"]))

    def agent(self, path: str) -> str:
        """What the agent's status server answers to GET `path`, asked through the API server. Raises NotFound."""
        pods = self.kubectl.list("pods", labels=AGENT)
        if not pods:
            raise errors.NotFound("There is no pod of the agent.", where=f"namespace {self.namespace}")
        name = pods[0]["metadata"]["name"]
        return self.kubectl.raw(f"/api/v1/namespaces/{self.namespace}/pods/{name}:{STATUS_PORT}/proxy{path}")

    def status(self) -> dict[str, Any]:
        """The agent's word on itself. Raises NotFound, Unavailable."""
        said: dict[str, Any] = json.loads(self.agent("/v1/status"))
        return said

    def manifest(self, project: str) -> Manifest:
        """A manifest that the agent has received. Raises NotFound with what it has."""
        try:
            return Manifest.parse(self.agent(f"/v1/manifests/{project}"), where="the agent")
        except errors.NotFound:
            known = ", ".join(entry["name"] for entry in self.status().get("pending", ())) or "none"
            raise errors.NotFound(
                f"The agent of {self.site} has received no project {project}.",
                todo=f"Waiting for a grant: {known}. Or bring its file: --manifest",
            ) from None


def find(namespace: str | None, context: str | None) -> Hospital:
    """The hospital of a namespace. Raises NotFound if none was installed there.

    Helm declares the Site last: as long as it waits for an agent that cannot reach the hub, the chart's plan stands in.
    """
    kubectl = Kubectl(namespace, context)
    place = kubectl.current_namespace()
    kubectl = Kubectl(place, context)
    if sites := kubectl.list("sites.koinon.dev"):
        return Hospital(kubectl, place, sites[0])
    try:
        planned = json.loads(kubectl.get("configmap", _PLAN)["data"]["site.json"])
    except errors.NotFound:
        raise errors.NotFound(
            "There is no Site.", where=f"namespace {place}", todo="Name the hospital's namespace: -n NAME"
        ) from None
    return Hospital(kubectl, place, planned, declared=False)


def project_name(grant: Mapping[str, Any]) -> str:
    """The project's name of a Grant, whose own name is the project's with eight digits of its hash."""
    return str(grant["metadata"]["name"]).rpartition("-")[0]


def condition(found: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A condition of an object's status; empty if it has not been set."""
    conditions: list[dict[str, Any]] = found.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry["type"] == kind), {})
