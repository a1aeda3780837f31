"""The end of a project here: its cluster is killed, and only what the API server itself says counts as gone.

First the RayCluster, so that KubeRay makes no new pods, then the pods at once, whether KubeRay runs or not; the walls
stand until no pod is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from koinon.domain.errors import NotFound
from koinon_operator.kinds import NETWORK_POLICY, POD, RAY_CLUSTER, SERVICE, Kind, Object
from koinon_operator.names import PROJECT, RAY_CLUSTER_LABEL, cluster, head
from koinon_operator.world import World

GRACE_SECONDS = 1
_STOPPED = (RAY_CLUSTER, POD, SERVICE)
_FIRST_LOOK, _LAST_LOOK = 0.5, 10.0
_PATIENCE = 0.1
"""Seconds until the next look, for each second that something has been left."""


@dataclass(frozen=True)
class Left:
    """What is left of a project; nothing, if `what` is empty."""

    what: str = ""

    @property
    def gone(self) -> bool:
        return not self.what


def look_again(since: float, now: float) -> float:
    """How soon after a look that found something the next one is: a pod on a dead node may stay for hours."""
    return min(_LAST_LOOK, max(_FIRST_LOOK, _PATIENCE * (now - since)))


def anything(world: World, home: str, project: str) -> bool:
    """Whether the cache knows of anything of the project, by which no call is made."""
    work = world.work(home)
    own = any(world.cache.get(NETWORK_POLICY, work, name) for name in (head(project), cluster(project)))
    return own or any(world.cache.select(kind, work, project) for kind in _STOPPED)


def stop(world: World, home: str, project: str, kinds: Sequence[Kind] = _STOPPED) -> bool:
    """Deletes RayCluster, pods and Services, as far as the cache knows them. True if there was anything."""
    work = world.work(home)
    found = False
    for kind in kinds:
        for obj in world.cache.select(kind, work, project):
            found = True
            if _stays(obj):
                grace = GRACE_SECONDS if kind == POD else None
                world.keeper.drop(kind, work, obj["metadata"]["name"], grace=grace)
    return found


def _stays(obj: Object) -> bool:
    """Not deleted yet, or with a grace of somebody's own; a shorter one wins."""
    meta = obj["metadata"]
    grace = meta.get("deletionGracePeriodSeconds") or 0
    return not meta.get("deletionTimestamp") or (obj["kind"] == POD.name and grace > GRACE_SECONDS)


def remove(world: World, home: str, project: str) -> Left:
    """One step towards nothing. Calls may be repeated until nothing is left."""
    stop(world, home, project)
    left = _left(world, home, project)
    if left.gone:
        work = world.work(home)
        for name in (head(project), cluster(project)):
            if world.cache.get(NETWORK_POLICY, work, name) is not None:
                world.keeper.drop(NETWORK_POLICY, work, name)
    return left


def _left(world: World, home: str, project: str) -> Left:
    """Asked of the API server, not of the cache."""
    work = world.work(home)
    found = []
    try:
        world.kube.get(RAY_CLUSTER, work, cluster(project))
        found.append("the RayCluster")
    except NotFound:
        pass
    for kind in (POD, SERVICE):
        names = sorted(_names(world, kind, work, project))
        found += [f"{len(names)} {kind.plural} ({', '.join(names[:3])})"] if names else []
    return Left(", ".join(found))


def _names(world: World, kind: Kind, work: str, project: str) -> set[str]:
    """By our label and by KubeRay's, which names the cluster."""
    names: set[str] = set()
    for label in (f"{PROJECT}={project}", f"{RAY_CLUSTER_LABEL}={cluster(project)}"):
        found, _ = world.kube.list(kind, work, label=label)
        names |= {str(obj["metadata"]["name"]) for obj in found}
        for obj in found:
            world.cache.put(kind, obj)  # so that what the cache missed is deleted as well
    return names
