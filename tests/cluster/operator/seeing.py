"""What a test waits for: conditions of a Grant, events, and nothing left of a project."""

import time
from collections.abc import Callable

from koinon.domain.errors import NotFound
from koinon_operator import status
from koinon_operator.kinds import EVENT, NETWORK_POLICY, POD, RAY_CLUSTER, SECRET, SERVICE, Object
from koinon_operator.kube import Kube
from koinon_operator.names import RAY_SECRET, project_of, short

PER_PROJECT = (NETWORK_POLICY, SERVICE, RAY_CLUSTER, POD)


def condition(resource: Object, kind: str) -> Object:
    found = status.find(resource.get("status") or {}, kind)
    return found or {}


def wait(
    read: Callable[[], Object], kind: str, truth: str, reason: str | None = None, *, seconds: float = 60
) -> Object:
    """The resource once its condition is so. The assertion's text is what it was last."""
    end = time.monotonic() + seconds
    while True:
        found = read()
        told = condition(found, kind)
        if told.get("status") == truth and reason in (None, told.get("reason")):
            return found
        assert time.monotonic() < end, f"{kind} is not {truth} ({reason}): {found.get('status')}"
        time.sleep(0.1)


def left(kube: Kube, work: str, manifest: str) -> list[str]:
    """What the work namespace still has of a project, its token included."""
    project = short(manifest)
    found = [
        f"{kind.name} {obj['metadata']['name']}"
        for kind in PER_PROJECT
        for obj in kube.list(kind, work)[0]
        if project_of(obj) == project
    ]
    try:
        tokens = kube.get(SECRET, work, RAY_SECRET).get("data") or {}
    except NotFound:
        tokens = {}
    return [*found, *(["token"] if project in tokens else [])]


def events(kube: Kube, namespace: str, reason: str) -> list[str]:
    found, _ = kube.list(EVENT, namespace)
    return [str(event["message"]) for event in found if event.get("reason") == reason]
