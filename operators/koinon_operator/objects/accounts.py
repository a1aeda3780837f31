"""The account of Ray pods, which may do nothing and has no token; and the Service in front of a cluster's head."""

from koinon_operator.kinds import SERVICE, SERVICE_ACCOUNT, Object
from koinon_operator.names import (
    ACCOUNT,
    HEAD,
    NODE,
    PORTS,
    PROJECT,
    head,
    labels,
)


def account(work: str) -> Object:
    return SERVICE_ACCOUNT.make(work, ACCOUNT, {"automountServiceAccountToken": False}, labels=labels())


def head_service(work: str, project: str) -> Object:
    """Ray's own workers find the head by this Service's address, since they resolve no names; so does the agent."""
    ports = [{"name": name, "protocol": "TCP", "port": number, "targetPort": number} for name, number in PORTS.items()]
    spec: Object = {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "selector": {PROJECT: project, NODE: HEAD},
        "ports": ports,
    }
    return SERVICE.make(work, head(project), {"spec": spec}, labels=labels(project))
