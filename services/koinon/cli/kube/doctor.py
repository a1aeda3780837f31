"""`kubectl koinon doctor`: what is wrong with a hospital's installation, and what to do.

Each examination reads the picture alone, so that it can be tried on any. They follow the way of a round, from the
cluster's prerequisites to training, since what comes first is usually the cause of what follows.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from koinon.cli import output
from koinon.cli.doctor import Finding
from koinon.cli.kube.gather import Picture
from koinon.cli.kube.hospital import condition
from koinon.domain import httpsig

_PULL = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_RENEW_DAYS = 30
_DAY = 86_400


def examine(picture: Picture, now: float) -> list[Finding]:
    """All findings, `bad` ones to be repaired in their order."""
    found = [finding for look in EXAMINATIONS for finding in look(picture, now)]
    return found or [Finding("hospital", "bad", "nothing could be examined.")]


def _prerequisites(picture: Picture, now: float) -> Iterator[Finding]:
    trouble = next((why for what, why in picture.troubles.items() if what.startswith("rayclusters")), None)
    if trouble is None:
        yield Finding("KubeRay", "good", "RayCluster is a known kind")
    elif "forbidden" in trouble.lower():
        yield Finding("KubeRay", "warn", "you may not list RayClusters.", "Ask for the right, or another admin.")
    else:
        yield Finding("KubeRay", "bad", f"it is not installed: {trouble}", "Install the kuberay-operator chart first.")
    if picture.intruder:
        yield Finding(
            "KubeRay's rights",
            "warn",
            f"{picture.intruder} may start pods in {picture.hospital.namespace}, which could mount the agent's keys.",
            "Give it rights in work namespaces alone: docs/kubernetes/hospital.md",
        )


def _operator(picture: Picture, now: float) -> Iterator[Finding]:
    pods = picture.of("operator")
    if any(_ready(pod) for pod in pods):
        yield Finding("operator", "good", "running")
    elif pods:
        yield from _pods("operator", picture, pods)
    else:
        wanted = [d for d in picture.here.get("deployments", ()) if "operator" in d["metadata"]["name"]]
        scaled = wanted and not wanted[0]["spec"].get("replicas", 1)
        said = "it is scaled to zero." if scaled else "there is no pod of it."
        todo = (
            f"kubectl -n {picture.hospital.namespace} scale deployment {wanted[0]['metadata']['name']} --replicas=1"
            if scaled
            else "helm status; kubectl describe deployment"
        )
        yield Finding("operator", "bad", said, todo)


def _agent(picture: Picture, now: float) -> Iterator[Finding]:
    namespace, pods = picture.hospital.namespace, picture.of("agent")
    keys = _secret(picture, "keys", "koinon-agent")
    if picture.secrets is not None and keys not in picture.secrets:
        yield Finding(
            "agent's keys",
            "bad",
            f"there is no Secret {keys}.",
            f"koinon site keys, then kubectl create secret generic {keys} -n {namespace} --from-file=…",
        )
    if not pods:
        yield Finding("agent", "bad", "there is no pod of it.", f"kubectl -n {namespace} describe statefulset")
    elif picture.agent is None:
        yield from _pods("agent", picture, pods)
    else:
        yield Finding("agent", "good", f"answers, version {picture.agent.get('version')}")
        left = (picture.agent.get("certificate_expires", 0) - now) / _DAY
        state = "bad" if left <= 0 else "warn" if left < _RENEW_DAYS else "good"
        yield Finding(
            "certificate", state, f"{left:.0f} days left", "" if state == "good" else "koinon site keys --renew"
        )


def _secret(picture: Picture, volume: str, usual: str) -> str:
    """The name of the Secret that the agent's pod mounts as `volume`."""
    for found in picture.here.get("statefulsets", ()):
        for mounted in found["spec"]["template"]["spec"].get("volumes", ()):
            if mounted["name"] == volume:
                return str(mounted.get("secret", {}).get("secretName", usual))
    return usual


def _hub(picture: Picture, now: float) -> Iterator[Finding]:
    said, url = picture.agent, picture.hospital.object["spec"]["hub"]["url"]
    if said is None:
        return
    if said.get("connected"):
        yield Finding("hub", "good", f"{url} answers")
    else:
        trouble = str(said.get("trouble") or "It does not answer.")
        what = trouble if url in trouble else f"{url}: {trouble}"
        contact = f"Last contact: {output.ago(said.get('last_contact'), now)}."
        yield Finding("hub", "bad", f"{what} {contact}", _remedy(trouble, picture))
    offset = float(said.get("clock_offset") or 0.0)
    bad = abs(offset) > httpsig.WINDOW
    yield Finding(
        "clock", "bad" if bad else "good", f"{offset:+.0f} s against the hub's", "Set the node's clock." if bad else ""
    )


def _remedy(trouble: str, picture: Picture) -> str:
    """What usually helps against what the agent met on its way to the hub."""
    if "is not trusted" in trouble:
        return "The hub's certificate is not by the CA that the agent trusts: set hub.ca of the chart."
    if "is enrolled here" in trouble:
        secret = _secret(picture, "invitation", "koinon-invitation")
        there = picture.secrets is None or secret in picture.secrets
        lacks = "holds none that the hub takes: kubectl koinon logs" if there else "is not there"
        return f"It needs the hub's invitation, and the Secret {secret} {lacks} (agent.invitation.existingSecret)."
    if "does not resolve" in trouble:
        return "The name does not resolve in this cluster: correct hub.url, or the cluster's DNS."
    if "does not answer" not in trouble:
        return ""  # the hub refused, and said what to do
    cidrs = ", ".join(picture.hospital.object["spec"]["hub"].get("cidrs", ())) or "no address at all"
    return f"Egress is open to {cidrs}: is the hub within hub.cidrs, and does it run? A proxy is the value proxy."


def _site(picture: Picture, now: float) -> Iterator[Finding]:
    """Helm's job declares it after the installation, and with --wait only once the agent is ready."""
    if picture.hospital.declared:
        return
    yield from _pods("Site", picture, [pod for pod in picture.of("hook") if pod["status"].get("phase") != "Succeeded"])
    yield Finding(
        "Site", "bad", "it is not declared yet: Helm's last step.", "Repair what is above; then helm upgrade."
    )


def _data(picture: Picture, now: float) -> Iterator[Finding]:
    claims = {claim["metadata"]["name"]: claim for claim in picture.work.get("persistentvolumeclaims", ())}
    datasets = picture.hospital.object["spec"].get("datasets", ())
    if not datasets:
        yield Finding("data", "bad", "the Site declares no data set.", "Set datasets in the chart's values.")
    for entry in datasets:
        what, claim = f"data set {entry['name']}", claims.get(entry["claimName"])
        if claim is None:
            yield Finding(
                what, "bad", f"there is no claim {entry['claimName']} in {picture.hospital.work}.", "Create it there."
            )
            continue
        phase = claim.get("status", {}).get("phase")
        waits = phase == "Pending" and not picture.warnings_about(entry["claimName"])  # for its first pod
        good = phase == "Bound" or waits
        yield Finding(
            what,
            "good" if good else "bad",
            f"claim {entry['claimName']} is {phase}",
            "" if good else "; ".join(picture.warnings_about(entry["claimName"])[-1:]),
        )


def _grants(picture: Picture, now: float) -> Iterator[Finding]:
    for grant in picture.grants:
        name = f"grant {grant['metadata']['name']}"
        if any(condition(grant, kind).get("status") == "True" for kind in ("Revoked", "Expired")):
            ended = "revoked" if condition(grant, "Revoked").get("status") == "True" else "expired"
            todo = "" if ended == "revoked" else "Grant it again: kubectl koinon grant"
            yield Finding(name, "warn", f"it has {ended}." if ended == "expired" else "it is revoked.", todo)
            continue
        bad = [
            condition(grant, kind)
            for kind in ("Verified", "DataAvailable", "EgressDenied", "ClusterReady")
            if condition(grant, kind).get("status") == "False"
        ]
        pods, starting = picture.of_grant(grant, "pods"), bool(bad) and bad[0].get("reason") == "Creating"
        for told in bad[:1]:  # the first is the cause
            yield Finding(name, "warn" if starting else "bad", f"{told.get('reason')}: {told.get('message', '')}")
        if bad and not starting:
            yield from (f for f in _pods(name, picture, [p for p in pods if not _ready(p)]) if f.state == "bad")
        elif starting:
            continue  # the operator says so when it takes too long
        elif not grant.get("status", {}).get("conditions"):
            yield Finding(name, "bad", "the operator has not looked at it.", "Is the operator running?")
        else:
            yield Finding(name, "good", f"{len(pods)} pods")


def _pods(what: str, picture: Picture, pods: Any) -> Iterator[Finding]:
    """Why pods are not ready, as far as Kubernetes says."""
    for pod in pods:
        said, todo = _why(pod, picture)
        yield Finding(what, "bad", f"pod {pod['metadata']['name']}: {said}", todo)


def _why(pod: dict[str, Any], picture: Picture) -> tuple[str, str]:
    status, namespace, name = pod.get("status", {}), pod["metadata"].get("namespace"), pod["metadata"]["name"]
    for container in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
        waiting, ended = (
            container.get("state", {}).get("waiting", {}),
            container.get("lastState", {}).get("terminated", {}),
        )
        if waiting.get("reason") in _PULL:
            return (
                f"the image {container.get('image')} cannot be pulled ({waiting['reason']}).",
                "Is it in the registry that image.registry names, and imagePullSecrets right?",
            )
        if ended.get("reason") == "OOMKilled":
            return f"{container['name']} needed more memory than it may have.", "Grant more: --memory"
        if waiting.get("reason") == "CrashLoopBackOff":
            told = ended.get("message") or f"exit status {ended.get('exitCode')}"
            return f"{container['name']} ends again and again: {told}", f"kubectl -n {namespace} logs {name} --previous"
    for told in status.get("conditions", ()):
        if told["type"] == "PodScheduled" and told["status"] == "False":
            return f"no node takes it: {told.get('message', '')}", "Make room, or grant less."
    warnings = picture.warnings_about(name)
    if warnings:
        missing = re.search(r'(secret|configmap) "([^"]+)" not found', warnings[-1])
        return warnings[-1], f"Create the {missing[1]} {missing[2]} in {namespace}." if missing else ""
    return f"{status.get('phase', 'Unknown')}, not ready", f"kubectl -n {namespace} describe pod {name}"


def _quota(picture: Picture, now: float) -> Iterator[Finding]:
    for warning in dict.fromkeys(picture.warnings_about("")):
        if "exceeded quota" in warning:
            yield Finding("quota", "bad", warning, "Raise the chart's value quota, or end a project.")
            return
    if picture.work.get("resourcequotas"):
        yield Finding("quota", "good", "nothing was turned away by it")


def _walls(picture: Picture, now: float) -> Iterator[Finding]:
    policies = picture.work.get("networkpolicies", ())
    closed = [
        policy
        for policy in policies
        if not policy["spec"].get("podSelector")
        and {"Ingress", "Egress"} <= set(policy["spec"].get("policyTypes", ()))
        and not policy["spec"].get("egress")
        and not policy["spec"].get("ingress")
    ]
    if "networkpolicies of " + picture.hospital.work in picture.troubles:
        yield Finding("walls", "warn", "you may not list NetworkPolicies.")
    elif not closed:
        yield Finding("walls", "bad", f"nothing denies traffic in {picture.hospital.work}.", "Is the operator running?")
    else:
        yield Finding("walls", "good", f"{closed[0]['metadata']['name']} denies what no other policy allows")


def _ready(pod: dict[str, Any]) -> bool:
    return any(
        told["type"] == "Ready" and told["status"] == "True" for told in pod.get("status", {}).get("conditions", ())
    )


EXAMINATIONS: tuple[Callable[[Picture, float], Iterator[Finding]], ...] = (
    _prerequisites,
    _operator,
    _agent,
    _hub,
    _site,
    _data,
    _walls,
    _quota,
    _grants,
)
