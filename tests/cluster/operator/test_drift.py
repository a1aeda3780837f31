"""Edits and deletions by hand of what the operator owns are undone, and nobody is fought for ever."""

import copy
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from koinon.domain.errors import Conflict, KoinonError, NotFound
from koinon_operator.drift import differences
from koinon_operator.fights import FREE
from koinon_operator.kinds import (
    CONFIG_MAP,
    LIMIT_RANGE,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    RESOURCE_QUOTA,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
    Object,
)
from koinon_operator.names import TEMPLATE, cluster, head, short
from tests.cluster import kubectl
from tests.cluster.operator import seeing
from tests.cluster.operator.conftest import Hospital
from tests.cluster.operator.rays import Rays
from tests.cluster.operator.running import Running, running

SEED = int(os.environ.get("SEED", "0")) or random.randrange(2**31)
EDITS = 50

Edit = Callable[[random.Random, Object], None]


def _set(obj: Object, path: str, value: object) -> None:
    *parents, last = path.split("/")
    for parent in parents:
        obj = obj[int(parent)] if isinstance(obj, list) else obj.setdefault(parent, {})
    obj[int(last) if isinstance(obj, list) else last] = value


def _policy(dice: random.Random, obj: Object) -> None:
    openings: list[Object] = [
        {"ingress": [{}], "egress": [{}]},
        {"egress": [{"to": [{"namespaceSelector": {}}]}]},
        {"podSelector": {"matchLabels": {"a": "b"}}},
    ]
    obj["spec"] |= {**dice.choice(openings), "policyTypes": ["Ingress", "Egress"]}


def _ray_cluster(dice: random.Random, obj: Object) -> None:
    template = "spec/headGroupSpec/template/spec"
    path, value = dice.choice(
        [
            (f"{template}/hostNetwork", True),
            (f"{template}/dnsPolicy", "ClusterFirst"),
            (f"{template}/automountServiceAccountToken", True),
            (f"{template}/serviceAccountName", "default"),
            (f"{template}/initContainers", []),
            (f"{template}/containers/0/image", "example.org/other:1"),
            (f"{template}/containers/0/securityContext/privileged", True),
            (f"{template}/containers/0/volumeMounts/0/mountPath", "/elsewhere"),
            (f"{template}/volumes/0", {"name": "shared-mem", "hostPath": {"path": "/"}}),
            ("spec/enableInTreeAutoscaling", True),
            ("spec/headGroupSpec/serviceType", "NodePort"),
            ("spec/headGroupSpec/rayStartParams/num-cpus", "64"),
        ]
    )
    _set(obj, path, value)


def _data(dice: random.Random, obj: Object) -> None:
    data = obj.setdefault("data", {})
    if data and dice.random() < 0.5:
        data.pop(dice.choice(sorted(data)))
    else:
        data[f"more-{dice.randrange(100)}"] = "bW9yZQ==" if obj["kind"] == "Secret" else "more"


def _service(dice: random.Random, obj: Object) -> None:
    path, value = dice.choice(
        [("spec/selector", {"app": "other"}), ("spec/ports/0/targetPort", 1), ("spec/publishNotReadyAddresses", True)]
    )
    _set(obj, path, value)


def _quota(dice: random.Random, obj: Object) -> None:
    obj["spec"]["hard"][dice.choice(["pods", "limits.cpu", "services.nodeports"])] = str(dice.randrange(1_000, 9_999))


def _limits(dice: random.Random, obj: Object) -> None:
    obj["spec"]["limits"][0]["default"]["cpu"] = f"{dice.randrange(300, 900)}m"


def _account(dice: random.Random, obj: Object) -> None:
    obj["automountServiceAccountToken"] = dice.choice([True, None])


def _labels(dice: random.Random, obj: Object) -> None:
    meta = obj["metadata"]
    what = dice.choice(["labels", "annotations"])
    found = meta.setdefault(what, {})
    if dice.random() < 0.5 and found:
        found.pop(dice.choice(sorted(found)))
    else:
        found[f"example.org/{dice.randrange(100)}"] = "by-hand"


def owned(hospital: Hospital, projects: list[str]) -> list[tuple[Kind, str, str, Edit]]:
    """Everything that the operator owns, with an edit for each kind."""
    work, home = hospital.work, hospital.home
    found: list[tuple[Kind, str, str, Edit]] = [
        (NETWORK_POLICY, work, "koinon-deny-all", _policy),
        (RESOURCE_QUOTA, work, "koinon", _quota),
        (LIMIT_RANGE, work, "koinon", _limits),
        (SERVICE_ACCOUNT, work, "koinon-ray", _account),
        (SECRET, work, "koinon-ray", _data),
        (CONFIG_MAP, work, "koinon-denial", _data),
        (CONFIG_MAP, home, "koinon-consents", _data),
    ]
    for project in projects:
        found += [
            (NETWORK_POLICY, work, cluster(project), _policy),
            (NETWORK_POLICY, work, head(project), _policy),
            (SERVICE, work, head(project), _service),
            (RAY_CLUSTER, work, cluster(project), _ray_cluster),
        ]
    return found


def _image(hospital: Hospital, projects: list[str]) -> dict[str, Object]:
    """All owned objects as they are. Raises NotFound if one is not there."""
    found = {}
    for kind, namespace, name, _ in owned(hospital, projects):
        found[f"{kind.name} {namespace}/{name}"] = {
            "kind": kind.name,
            **hospital.kube.get(kind, namespace, name),
        }
    return found


def _wrong(before: dict[str, Object], hospital: Hospital, projects: list[str]) -> list[str]:
    """What is not as before; the address of a Service that was made anew may differ, and with it the template."""
    try:
        now = _image(hospital, projects)
    except NotFound as error:
        return [error.where]
    wrong = []
    for name, obj in before.items():
        wanted, live = _without_address(obj), _without_address(now[name])
        wrong += [f"{name}: {path}" for path in differences(wanted, live)]
    return wrong


def _without_address(obj: Object) -> Object:
    found = copy.deepcopy(obj)
    found["metadata"] = {key: found["metadata"].get(key) for key in ("name", "namespace", "labels", "ownerReferences")}
    found.pop("status", None)
    if found["kind"] == "Service":
        found["spec"] = {key: found["spec"][key] for key in ("type", "selector", "ports", "sessionAffinity")}
    if found["kind"] == "RayCluster":
        template = found["spec"]["headGroupSpec"]["template"]
        template["metadata"]["annotations"].pop(TEMPLATE)
        template["spec"]["hostAliases"][0].pop("ip")
    return found


@pytest.mark.usefixtures("rays")
def test_fifty_edits_and_deletions_by_hand_are_all_undone(hospital: Hospital, operator: Running) -> None:
    print(f"SEED={SEED}")
    dice = random.Random(SEED)
    grants = [hospital.grant(name) for name in ("heart", "lung", "brain", "skin")]
    for grant in grants:
        seeing.wait(partial(hospital.seen, grant), "Ready", "True")
    projects = [short(grant["spec"]["manifest"]) for grant in grants]
    kubectl.until(lambda: len(hospital.kube.get(CONFIG_MAP, hospital.home, "koinon-consents")["data"]) == 4, "consents")
    operator.idle()
    before = _image(hospital, projects)
    done: list[str] = []
    began = time.monotonic()
    while len(done) < EDITS:
        kind, namespace, name, edit = dice.choice(owned(hospital, projects))
        if dice.random() < 0.4:
            done += _try(lambda: hospital.kube.delete(kind, namespace, name), f"deleted {kind.name} {name}")  # noqa: B023
        else:
            done += _try(lambda: _edit(hospital, dice, kind, namespace, name, edit), f"edited {kind.name} {name}")  # noqa: B023
        time.sleep(dice.random() * 0.2)
    made = time.monotonic()
    end = time.monotonic() + 120
    while wrong := _wrong(before, hospital, projects):
        assert time.monotonic() < end, wrong
        time.sleep(0.2)
    print(f"{EDITS} edits within {made - began:.1f} s, the last of them undone {time.monotonic() - made:.1f} s later")
    for grant in grants:
        seeing.wait(partial(hospital.seen, grant), "Ready", "True", seconds=60)
    assert seeing.events(hospital.kube, hospital.home, "DriftRepaired")


def _edit(hospital: Hospital, dice: random.Random, kind: Kind, namespace: str, name: str, edit: Edit) -> None:
    obj = hospital.kube.get(kind, namespace, name)
    obj = {"kind": kind.name, "apiVersion": kind.api_version, **obj}
    (_labels if dice.random() < 0.2 else edit)(dice, obj)
    obj["metadata"].pop("managedFields", None)
    hospital.kube.replace(kind, obj)


def _try(change: Callable[[], None], what: str) -> list[str]:
    """Nothing if the operator was faster, or the API server refused the edit."""
    try:
        change()
    except (NotFound, Conflict):
        return []
    return [what]


@pytest.mark.usefixtures("rays")
def test_a_controller_that_keeps_changing_a_wall_is_not_fought_for_ever_and_nothing_runs_meanwhile(
    hospital: Hospital, tmp_path: Path
) -> None:
    with running({hospital.home: hospital.work}, tmp_path / "log") as operator:
        grant = hospital.grant()
        seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
        name = head(short(grant["spec"]["manifest"]))
        deleted, end = 0, time.monotonic() + 15
        while time.monotonic() < end:
            try:
                hospital.kube.delete(NETWORK_POLICY, hospital.work, name)
                deleted += 1
            except NotFound:
                time.sleep(0.02)
        repaired = operator.total("koinon_operator_drift_repaired_total", kind="NetworkPolicy")
        print(f"deleted {deleted} times in 15 s, repaired {repaired:g} times")
        assert deleted >= FREE
        assert repaired <= FREE + 2
        found = seeing.wait(lambda: hospital.seen(grant), "EgressDenied", "False", "PolicyContested")
        assert seeing.condition(found, "ClusterReady")["reason"] == "Removed"
        assert not hospital.kube.list(POD, hospital.work)[0]
        assert seeing.events(hospital.kube, hospital.home, "Contested")
        seeing.wait(lambda: hospital.seen(grant), "Ready", "True", seconds=60)


@pytest.mark.usefixtures("operator")
def test_pods_that_are_not_as_wanted_are_replaced(hospital: Hospital, rays: Rays) -> None:
    grant = hospital.grant()
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
    project = short(grant["spec"]["manifest"])
    (good,) = hospital.kube.list(POD, hospital.work)[0]
    stranger = copy.deepcopy(good)
    stranger["metadata"] = {
        "name": "stranger",
        "namespace": hospital.work,
        "labels": {key: value for key, value in good["metadata"]["labels"].items() if key.startswith("koinon.dev")},
    }
    stranger.pop("status")
    hospital.kube.create(POD, {"kind": "Pod", "apiVersion": "v1", **stranger})
    kubectl.until(lambda: _names(hospital) == [good["metadata"]["name"]], "the stranger is gone")
    hospital.kube.delete(SERVICE, hospital.work, head(project))  # another address, so another template
    kubectl.until(
        lambda: _names(hospital) not in ([], [good["metadata"]["name"]]), "the pod of the old template is gone"
    )
    seeing.wait(lambda: hospital.seen(grant), "Ready", "True")
    assert len(seeing.events(hospital.kube, hospital.home, "PodReplaced")) == 2
    assert rays.errors == []


def _names(hospital: Hospital) -> list[str]:
    try:
        return [pod["metadata"]["name"] for pod in hospital.kube.list(POD, hospital.work)[0]]
    except KoinonError:
        return []
