"""Where the ranks of a group run: one on each worker node of the hospital's Ray, or on the head if it is alone.

Ray on one machine is a head without workers. On Kubernetes the operator sets how many worker pods there are,
between the bounds of the Grant.
"""

import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REACH_SECONDS = 2.0
HEAD = "node:__internal_head__"
"""The resource that Ray gives to the head's node."""


@dataclass(frozen=True)
class Place:
    """A Ray node, its IP address, and whether a rank uses a GPU there."""

    node: str
    address: str
    gpu: bool = False


def answering(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of `ray.nodes()` whose raylet takes a connection: Ray notices a lost node after 15 s only."""
    return [node for node in nodes if node["Alive"] and _answers(node["NodeManagerAddress"], node["NodeManagerPort"])]


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), REACH_SECONDS).close()
    except OSError:
        return False
    return True


def choose(nodes: Sequence[Mapping[str, Any]], most: int, used: Collection[str] = ()) -> list[Place]:
    """Out of `answering` nodes, `most` places at most; nodes in `used` come first, since ranks there are warm.

    GPUs are used if each place has one: two kinds of processor do not give the same bytes.
    """
    workers = [node for node in nodes if HEAD not in node["Resources"]]
    chosen = sorted(workers or nodes, key=lambda node: (node["NodeID"] not in used, node["NodeID"]))[:most]
    gpu = all(node["Resources"].get("GPU", 0) >= 1 for node in chosen)
    return [Place(node["NodeID"], node["NodeManagerAddress"], gpu) for node in chosen]
