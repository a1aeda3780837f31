"""NetworkPolicies of the work namespace: nothing goes in or out, but within one project and from the agent."""

from koinon_operator.kinds import NETWORK_POLICY, Object
from koinon_operator.names import (
    AGENT,
    COMPONENT,
    DASHBOARD_PORT,
    DENY_ALL,
    HEAD,
    METRICS_PORT,
    NODE,
    PROJECT,
    TRAINER_PORT,
    cluster,
    head,
    labels,
    project_of,
)

_NAMESPACE = "kubernetes.io/metadata.name"


def deny_all(work: str) -> Object:
    """Every pod of the namespace: no ingress, no egress, DNS included."""
    spec: Object = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    return NETWORK_POLICY.make(work, DENY_ALL, {"spec": spec}, labels=labels())


def project(work: str, project: str, *, monitoring: str = "") -> Object:
    """Ray pod <--> Ray pod of the same project; monitoring --> Ray pod:8080."""
    own = {"podSelector": {"matchLabels": {PROJECT: project}}}
    ingress: list[Object] = [{"from": [own]}]
    if monitoring:
        ingress.append({"from": [_namespace(monitoring)], "ports": [_port(METRICS_PORT)]})
    spec: Object = {
        "podSelector": {"matchLabels": {PROJECT: project}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": [{"to": [own]}],
    }
    return NETWORK_POLICY.make(work, cluster(project), {"spec": spec}, labels=labels(project))


def head_policy(work: str, project: str, *, home: str) -> Object:
    """agent --> head:8265 (jobs), head:8471 (trainer)"""
    agent = {**_namespace(home), "podSelector": {"matchLabels": {COMPONENT: AGENT}}}
    spec: Object = {
        "podSelector": {"matchLabels": {PROJECT: project, NODE: HEAD}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [agent], "ports": [_port(DASHBOARD_PORT), _port(TRAINER_PORT)]}],
    }
    return NETWORK_POLICY.make(work, head(project), {"spec": spec}, labels=labels(project))


def is_foreign(policy: Object) -> bool:
    """Whether a policy of the work namespace lets anything through, and not only for the pods of the project that it is
    named for. Nobody has such pods once the project is not granted."""
    spec, meta = policy["spec"], policy["metadata"]
    if not (spec.get("ingress") or spec.get("egress")):
        return False
    of = project_of(policy)
    selected = (spec.get("podSelector") or {}).get("matchLabels") or {}
    return not (of and meta["name"] in (cluster(of), head(of)) and selected.get(PROJECT) == of)


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE: name}}}


def _port(number: int) -> Object:
    return {"protocol": "TCP", "port": number}
