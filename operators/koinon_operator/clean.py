"""`python -m koinon_operator clean`: before a hospital's chart is removed.

Deletes its Sites, and returns once nothing that the operator made is left: the operator removes it, and if that does
not run any more, this does the same work.
"""

import logging
import time

from koinon.domain.errors import KoinonError, NotFound, Waiting
from koinon_operator.kinds import CONFIG_MAP, POD, SECRET, SITE, WORK, Object
from koinon_operator.names import CONSENTS, MANAGED_BY, MANAGER, RAY_SECRET, project_of
from koinon_operator.runtime import Operator
from koinon_operator.settings import Settings
from koinon_operator.world import World

log = logging.getLogger("koinon.operator")

SECONDS = 200.0
_PAUSE_SECONDS = 0.5


def clean(settings: Settings, *, seconds: float = SECONDS) -> None:
    """Raises Waiting that names what is left after that time."""
    operator = Operator(settings)
    end = time.monotonic() + seconds
    while True:
        left = _step(operator, settings)
        if not left:
            return
        if time.monotonic() >= end:
            raise Waiting(f"Still there after {seconds:.0f} s: {', '.join(left[:10])}.", todo="Delete it by hand.")
        time.sleep(_PAUSE_SECONDS)


def _step(operator: Operator, settings: Settings) -> list[str]:
    try:
        for home in settings.hospitals:
            _delete_sites(operator.world, home)
        operator.resync()
        operator.drain()
        operator.resync()
    except KoinonError as error:
        log.warning("Not all of it could be removed: %s", error)
        return [error.what]
    return [name for home in settings.hospitals for name in _left(operator.world, home)]


def _delete_sites(world: World, home: str) -> None:
    found, _ = world.kube.list(SITE, home)
    for site in found:
        try:
            world.kube.delete(SITE, home, site["metadata"]["name"])
        except NotFound:
            continue  # somebody else was faster


def _left(world: World, home: str) -> list[str]:
    """Names of all that the operator made, and of the pods that KubeRay made for it."""
    work = world.work(home)
    found = [obj for kind in WORK for obj in world.cache.select(kind, work) if kind != POD and _ours(obj)]
    found += [pod for pod in world.cache.select(POD, work) if project_of(pod)]
    found += [obj for kind in (SECRET, CONFIG_MAP) for obj in world.cache.select(kind, home) if _ours(obj)]
    return [f"{obj['kind']} {obj['metadata']['namespace']}/{obj['metadata']['name']}" for obj in found]


def _ours(obj: Object) -> bool:
    meta = obj["metadata"]
    own = (meta.get("labels") or {}).get(MANAGED_BY) == MANAGER
    return own or meta["name"] in (RAY_SECRET, CONSENTS)
