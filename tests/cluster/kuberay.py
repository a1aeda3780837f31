"""KubeRay's operator: the namespaces it watches, which are those where a RoleBinding lets it act.

`watch` after the namespace and its RoleBinding are there (the chart koinon-site makes it; `bind` for tests without the
chart), `unwatch` before they go: KubeRay does not start while it may not list what it is told to watch.
With a cluster of the user's own, KOINON_KUBERAY names KubeRay's deployment, if it is another, as NAMESPACE/NAME.
"""

import json
import os

from tests.cluster import kubectl

NAMESPACE, NAME = os.environ.get("KOINON_KUBERAY", "kuberay-system/kuberay-operator").split("/")
ROLE = "kuberay-work-namespace"
_FLAG = "--watch-namespace="


def account() -> str:
    """KubeRay's service account, as `namespace:name`."""
    deployment = kubectl.required("deployment", NAME, NAMESPACE)
    return f"{NAMESPACE}:{deployment['spec']['template']['spec']['serviceAccountName']}"


def bind(namespace: str) -> None:
    """Gives KubeRay its rights in a namespace."""
    arguments = ("create", "rolebinding", ROLE, f"--clusterrole={ROLE}", f"--serviceaccount={account()}")
    kubectl.run("-n", namespace, *arguments)


def watch(*namespaces: str) -> None:
    """Returns when KubeRay watches them, too. Raises AssertionError for one where it has no rights."""
    who = account()
    for namespace in namespaces:
        kubectl.until(
            lambda name=namespace: kubectl.may(who, "list", "rayclusters.ray.io", name),  # type: ignore[misc]
            f"a RoleBinding of {ROLE} for {who} in {namespace}",
            seconds=10,
        )
    _set(add=set(namespaces), remove=set())


def unwatch(*namespaces: str) -> None:
    """Returns when KubeRay watches them no more."""
    _set(add=set(), remove=set(namespaces))


def _set(add: set[str], remove: set[str]) -> None:
    kubectl.until(lambda: _replaced(add, remove), "nobody else changes KubeRay's deployment")
    kubectl.run("-n", NAMESPACE, "rollout", "status", f"deployment/{NAME}", "--timeout=60s", seconds=70)


def _replaced(add: set[str], remove: set[str]) -> bool:
    """False if somebody else changed the deployment meanwhile."""
    deployment = kubectl.required("deployment", NAME, NAMESPACE)
    arguments = deployment["spec"]["template"]["spec"]["containers"][0].get("args", [])
    watched = next((a.removeprefix(_FLAG) for a in arguments if a.startswith(_FLAG)), "")
    if not watched:
        return True  # it watches all of them
    there = {found["metadata"]["name"] for found in kubectl.find("namespace")}
    wanted = ((set(watched.split(",")) | add) - remove) & there
    if wanted == set(watched.split(",")):
        return True
    flags = [a for a in arguments if not a.startswith(_FLAG)]
    deployment["spec"]["template"]["spec"]["containers"][0]["args"] = [*flags, _FLAG + ",".join(sorted(wanted))]
    try:
        kubectl.run("replace", "-f", "-", stdin=json.dumps(deployment))
    except kubectl.Failed as error:
        if "the object has been modified" in str(error):
            return False
        raise
    return True
