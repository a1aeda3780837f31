"""Any difference of an object of the operator's own is seen; what the API server and KubeRay add is not one."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.domain.errors import Invalid
from koinon.domain.grant import Resources
from koinon_operator import drift
from koinon_operator.documents import Quota
from koinon_operator.kinds import Object
from koinon_operator.objects import accounts, bounds, denial, raycluster, walls
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


def test_a_service_without_an_address_has_to_be_made_anew() -> None:
    wanted = accounts.head_service("lyon-work", RAY.project)
    live = samples.seen(wanted)
    live["spec"]["clusterIP"] = "None"
    assert drift.differences(wanted, live) == ["spec.clusterIP"]
    with pytest.raises(Invalid, match="address"):
        drift.carry(wanted, live)
