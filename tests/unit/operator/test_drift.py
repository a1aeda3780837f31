"""Any difference of an object of the operator's own is seen; what the API server and KubeRay add is not one."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.domain.grant import Resources
from koinon_operator import drift
from koinon_operator.documents import Quota
from koinon_operator.kinds import Object
from koinon_operator.objects import accounts, bounds, denial, pods, raycluster, walls
from tests.unit.operator import samples

RAY = samples.ray(Resources(min_workers=1, max_workers=2))
CLUSTER = raycluster.build(RAY, workers=1, token="t")
WANTED: list[Object] = [
    walls.deny_all("lyon-work"),
    walls.project("lyon-work", RAY.project, monitoring="monitoring"),
    walls.head_policy("lyon-work", RAY.project, home="lyon"),
    bounds.quota("lyon-work", Quota(RAY.hospital.quota.cpu, 2**34, 0, 9)),
    bounds.limits("lyon-work"),
    accounts.account("lyon-work"),
    accounts.head_service("lyon-work", RAY.project),
    denial.config_map("lyon-work", ["10.0.0.1:443"]),
    CLUSTER,
]


def paths(node: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every field and entry below the top."""
    found = [] if len(place) < 2 else [place]
    if isinstance(node, dict):
        for key, value in node.items():
            found += paths(value, (*place, key))
    if isinstance(node, list):
        for index, value in enumerate(node):
            found += paths(value, (*place, index))
    return found


def change(obj: Object, path: tuple[Any, ...], how: str) -> Object:
    changed = copy.deepcopy(obj)
    node: Any = changed
    for step in path[:-1]:
        node = node[step]
    if how == "drop":
        del node[path[-1]]
    elif how == "add" and isinstance(node[path[-1]], dict):
        node[path[-1]]["by-hand"] = {}  # as an empty selector, which selects everything
    elif how == "add" and isinstance(node[path[-1]], list):
        node[path[-1]].append({})
    else:
        node[path[-1]] = "by-hand"
    return changed


@pytest.mark.parametrize("wanted", WANTED, ids=lambda obj: f"{obj['kind']}-{obj['metadata']['name']}")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_edit_is_seen(wanted: Object, data: st.DataObject) -> None:
    live = samples.seen(wanted)
    assert drift.differences(wanted, live) == []
    editable = [path for path in paths(wanted) if path[:2] not in (("metadata", "name"), ("metadata", "namespace"))]
    path = data.draw(st.sampled_from(editable))
    how = data.draw(st.sampled_from(["drop", "add", "set"]))
    edited = change(live, path, how)
    found = drift.differences(wanted, edited)
    assert found
    assert all(place.startswith(str(path[0])) for place in found)


def test_what_the_api_server_chooses_for_a_service_is_carried_and_no_difference() -> None:
    wanted = accounts.head_service("lyon-work", RAY.project)
    live = samples.seen(wanted, managedFields=[])
    chosen = {"clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4"], "ipFamilies": ["IPv4"]}
    live["spec"] = {**live["spec"], **chosen}
    live["status"] = {"loadBalancer": {}}
    assert drift.differences(wanted, live) == []
    carried = drift.carry(wanted, live)
    assert carried["spec"] == live["spec"]
    assert carried["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
    assert "status" not in carried


def test_quantities_are_compared_as_numbers_and_only_where_there_are_quantities() -> None:
    wanted = bounds.quota("lyon-work", Quota(RAY.hospital.quota.cpu, 4_000_000_000, 0, 9))
    live = samples.seen(wanted)
    live["spec"]["hard"] |= {"limits.memory": "4G", "requests.memory": "4000M"}
    assert drift.differences(wanted, live) == []
    live["spec"]["hard"]["pods"] = "9k"
    assert drift.differences(wanted, live) == ["spec.hard.pods"]
    text = denial.config_map("lyon-work", ["1000"])
    other = samples.seen(text)
    other["data"]["targets"] = "1k"
    assert drift.differences(text, other) == ["data.targets"]


@pytest.mark.parametrize("node", ["head", "worker"])
def test_a_pod_as_kuberay_makes_it_is_as_wanted(node: str) -> None:
    pod = samples.pod(CLUSTER, node)
    assert drift.pod_differences(raycluster.template_of(CLUSTER, node), pod) == []


def test_a_pod_whose_quantities_the_api_server_wrote_anew_is_as_wanted() -> None:
    ray = samples.ray(Resources(memory=4_000_000_000, cpus=2))
    cluster = raycluster.build(ray, workers=0, token="t")
    pod = samples.pod(cluster, "head")
    pod["spec"]["containers"][0]["resources"]["limits"]["memory"] = "4G"
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"
    pod["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = "2G"
    assert drift.pod_differences(raycluster.template_of(cluster, "head"), pod) == []


OPENED: dict[str, Any] = {
    "hostNetwork": lambda spec: spec.update(hostNetwork=True),
    "hostPID": lambda spec: spec.update(hostPID=True),
    "a debugger": lambda spec: spec.update(ephemeralContainers=[{"name": "debugger"}]),
    "names": lambda spec: spec.update(dnsPolicy="ClusterFirst"),
    "a name server": lambda spec: spec["dnsConfig"].update(nameservers=["10.96.0.10"]),
    "a token": lambda spec: spec.pop("automountServiceAccountToken"),
    "another account": lambda spec: spec.update(serviceAccountName="default"),
    "no denial": lambda spec: spec["initContainers"].pop(0),
    "denial later": lambda spec: spec["initContainers"].reverse(),
    "denial of nothing": lambda spec: spec["initContainers"][0].update(args=[]),
    "a sidecar": lambda spec: spec["containers"].append({"name": "sidecar"}),
    "another init container": lambda spec: spec["initContainers"].append({"name": "more"}),
    "another volume": lambda spec: spec["volumes"].append({"name": "more", "hostPath": {"path": "/"}}),
    "data for writing": lambda spec: spec["volumes"][3]["persistentVolumeClaim"].update(readOnly=False),
    "other data": lambda spec: spec["volumes"][3]["persistentVolumeClaim"].update(claimName="lungs"),
    "another image": lambda spec: spec["containers"][0].update(image="other"),
    "root": lambda spec: spec["containers"][0]["securityContext"].update(runAsNonRoot=False),
    "privileges": lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities": lambda spec: spec["containers"][0]["securityContext"]["capabilities"].update(drop=[]),
    "another token": lambda spec: spec["containers"][0]["env"][-2]["valueFrom"]["secretKeyRef"].update(key="other"),
}


@pytest.mark.parametrize("change", OPENED.values(), ids=OPENED)
def test_a_pod_that_opens_anything_is_not(change: Any) -> None:
    pod = samples.pod(CLUSTER, "worker")
    change(pod["spec"])
    assert drift.pod_differences(raycluster.template_of(CLUSTER, "worker"), pod)


def test_the_sample_pods_are_of_the_templates_they_say() -> None:
    assert pods.template(RAY, "head")["spec"]["containers"][0]["name"] == "ray-head"
    assert samples.pod(CLUSTER, "worker")["spec"]["initContainers"][1]["name"] == "wait-gcs-ready"
