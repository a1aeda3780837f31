"""Is a Ray pod made from its template, and does it open nothing more? Pure.

Pods are KubeRay's, which adds to the template: the command of `ray start`, variables, and of a worker the init
container that waits for the head. Admission adds where a pod runs. All else must be as wanted, since one more mount
shows other data and one more name server opens a wall.
"""

import re
from collections.abc import Iterator

from koinon_operator.drift import exact, within
from koinon_operator.kinds import Object
from koinon_operator.names import NODE, WORKER

_WAITING = "wait-gcs-ready"
_PLACEMENT = frozenset(
    (
        "nodeName", "schedulerName", "priority", "priorityClassName", "preemptionPolicy", "affinity", "overhead",
        "topologySpreadConstraints", "runtimeClassName", "serviceAccount",
    )
)  # fmt: skip
_MORE = ("tolerations", "nodeSelector", "imagePullSecrets")
"""Where a pod may have more than was wanted."""
_PARTS = ("containers", "initContainers", "volumes")
_HARDENING = ("seLinuxOptions", "fsGroup", "supplementalGroups")
_MESSAGES = ("terminationMessagePath", "terminationMessagePolicy")
_DEFAULTED = ("resources", "readinessProbe", "livenessProbe", "ports")
_SHELL = re.compile(r"/bin/bash -l?c --")
_START = re.compile(r"(ulimit -n \d+; )?ray start( +--[\w-]+(=[\w.:/-]*)?)+ *")
"""Nothing that a shell would take for a second command."""
_VARIABLE = re.compile(r"(RAY_|KUBERAY_|FQ_RAY_)\w+")


def differences(template: Object, pod: Object) -> list[str]:
    """Paths at which a pod is not made from `template`, or opens more than it; none if all is well."""
    wanted, live = template["spec"], pod["spec"]
    skipped = {*_PARTS, *_MORE, "securityContext"}
    left = {key: value for key, value in wanted.items() if key not in skipped}
    right = {key: value for key, value in live.items() if key not in skipped | _PLACEMENT}
    found = [*exact(left, right, "spec"), *_security(wanted, live, "spec")]
    for key in _MORE:
        found += within(wanted.get(key), live.get(key), f"spec.{key}") if key in wanted else []
    found += exact(_by_name(wanted, "volumes"), _by_name(live, "volumes"), "spec.volumes")
    found += _containers(wanted["containers"], live.get("containers") or [], "spec.containers", started=True)
    first: list[Object] = live.get("initContainers") or []
    if template["metadata"]["labels"].get(NODE) == WORKER and [found["name"] for found in first[1:]] == [_WAITING]:
        found += _waits(wanted["containers"][0], first[1])
        first = first[:1]
    return found + list(_containers(wanted["initContainers"], first, "spec.initContainers", started=False))


def _by_name(spec: Object, section: str) -> Object:
    return {str(entry["name"]): entry for entry in spec.get(section) or []}


def _containers(wanted: list[Object], live: list[Object], path: str, *, started: bool) -> Iterator[str]:
    """`started`: KubeRay gives them the command."""
    if [one["name"] for one in wanted] != [other["name"] for other in live]:
        yield path
        return
    for one, other in zip(wanted, live, strict=True):
        yield from _container(one, other, f"{path}[{one['name']}]", started=started)


def _container(wanted: Object, live: Object, path: str, *, started: bool) -> Iterator[str]:
    skipped = {"env", "volumeMounts", "securityContext", *_DEFAULTED, *({"command", "args"} if started else ())}
    left = {key: value for key, value in wanted.items() if key not in skipped}
    right = {key: value for key, value in live.items() if key not in skipped and (key in left or key not in _MESSAGES)}
    yield from exact(left, right, path)
    for key in _DEFAULTED:
        if key in wanted:
            yield from within(wanted[key], live.get(key), f"{path}.{key}")
    if any(port.get("hostPort") for port in live.get("ports") or []):
        yield f"{path}.ports"
    yield from _security(wanted, live, path)
    yield from exact(_mounts(wanted), _mounts(live), f"{path}.volumeMounts")
    yield from _environment(wanted, live, path)
    if started and not (_SHELL.fullmatch(_words(live, "command")) and _START.fullmatch(_words(live, "args"))):
        yield f"{path}.command"


def _words(container: Object, key: str) -> str:
    return " ".join(map(str, container.get(key) or []))


def _waits(main: Object, live: Object) -> Iterator[str]:
    """KubeRay's container that waits for the head: of the same image, and sees no more than the `main` one will."""
    path = f"spec.initContainers[{_WAITING}]"
    yield from exact(main["image"], live.get("image"), f"{path}.image")
    yield from _security(main, live, path)
    yield from _environment(main, live, path)
    if not _mounts(live).items() <= _mounts(main).items():
        yield f"{path}.volumeMounts"
    known = {"name", "image", "imagePullPolicy", "command", "args", "env", "volumeMounts", "securityContext"}
    yield from (f"{path}.{key}" for key in sorted(live.keys() - known - {"resources", *_MESSAGES}))


def _mounts(container: Object) -> dict[str, Object]:
    return {str(mount.get("mountPath")): mount for mount in container.get("volumeMounts") or []}


def _security(wanted: Object, live: Object, path: str) -> Iterator[str]:
    left: Object = wanted.get("securityContext") or {}
    right: Object = live.get("securityContext") or {}
    kept = {key: value for key, value in right.items() if key in left or key not in _HARDENING}
    if kept.get("seccompProfile") == {"type": "RuntimeDefault"} and "seccompProfile" not in left:
        del kept["seccompProfile"]
    yield from exact(left, kept, f"{path}.securityContext")


def _environment(wanted: Object, live: Object, path: str) -> Iterator[str]:
    """All variables that were wanted, each once; of others only Ray's own, and none out of a Secret."""
    found = live.get("env") or []
    names = [variable.get("name") for variable in found]
    asked = {variable["name"]: variable for variable in wanted.get("env") or []}
    for name, variable in asked.items():
        if names.count(name) != 1 or any(exact(variable, found[names.index(name)], "")):
            yield f"{path}.env[{name}]"
    for variable in found:
        name, source = str(variable.get("name")), variable.get("valueFrom") or {}
        if name not in asked and not (_VARIABLE.fullmatch(name) and source.keys() <= {"fieldRef"}):
            yield f"{path}.env[{name}]"
