"""Where ranks run, out of what Ray says of its nodes."""

import socket
from typing import Any

from koinon.trainer.places import HEAD, Place, answering, choose


def node(name: str, *, head: bool = False, **resources: float) -> dict[str, Any]:
    marks = {HEAD: 1.0} if head else {}
    return {"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Resources": {**resources, **marks}}


def nodes(places: list[Place]) -> list[str]:
    return [place.node for place in places]


HEAD_NODE = node("0", head=True, CPU=2)


def test_the_head_trains_while_it_is_alone() -> None:
    assert choose([HEAD_NODE], 4) == [Place("0", "10.0.0.0")]


def test_workers_train_and_the_head_serves() -> None:
    assert nodes(choose([node("2"), HEAD_NODE, node("1")], 4)) == ["1", "2"]


def test_the_grants_bound_holds_and_warm_ranks_stay() -> None:
    many = [HEAD_NODE, *(node(name) for name in "12345")]
    assert nodes(choose(many, 2)) == ["1", "2"]
    assert nodes(choose(many, 2, used={"4", "5"})) == ["4", "5"]
    assert nodes(choose(many, 3, used={"4", "0"})) == ["4", "1", "2"]


def test_gpus_are_used_by_all_or_by_none() -> None:
    assert choose([node("0", head=True, GPU=1)], 2) == [Place("0", "10.0.0.0", gpu=True)]
    both = [node("1", GPU=1), node("2", GPU=2)]
    assert [place.gpu for place in choose([HEAD_NODE, *both], 2)] == [True, True]
    assert [place.gpu for place in choose([HEAD_NODE, *both, node("3", CPU=8)], 3)] == [False, False, False]


def test_a_node_that_takes_no_connection_is_gone_before_ray_knows() -> None:
    with socket.create_server(("127.0.0.1", 0)) as raylet:
        living = {"Alive": True, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": raylet.getsockname()[1]}
        assert answering([living, {**living, "Alive": False}]) == [living]
    assert answering([living]) == []
