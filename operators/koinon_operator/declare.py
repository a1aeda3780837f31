"""`python -m koinon_operator.declare FILE`: makes the Site what FILE says. The chart's job after each installation.

Helm cannot make an object of a kind that the same release brings. So the chart writes the Site into a ConfigMap, and
this job, whose account may do nothing else, applies it. The Site belongs to that ConfigMap and goes with it.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from koinon.domain.errors import Conflict, KoinonError, NotFound, Unavailable
from koinon_operator.kinds import CONFIG_MAP, SITE, Object
from koinon_operator.kube import Kube

OWNER = "koinon-site"
"""Name of the ConfigMap."""
_WAIT_SECONDS = 120.0
_PAUSE_SECONDS = 0.5


def declare(kube: Kube, wanted: Object) -> Object:
    """Creates the Site, or replaces the spec of the one that is there. What others noted in its metadata stays.

    Raises NotFound while the API server does not serve Sites yet, Invalid for what its schema refuses or what can never
    change, Conflict if somebody else wrote at the same time.
    """
    namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
    config = kube.get(CONFIG_MAP, namespace, OWNER)
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": OWNER, "uid": config["metadata"]["uid"]}
    labels = wanted["metadata"].get("labels", {})
    try:
        found = kube.get(SITE, namespace, name)
    except NotFound:
        return kube.create(SITE, {**wanted, "metadata": {**wanted["metadata"], "ownerReferences": [owner]}})
    meta = {
        **found["metadata"],
        "labels": {**found["metadata"].get("labels", {}), **labels},
        "ownerReferences": [owner],
    }
    return kube.replace(SITE, {**found, "metadata": meta, "spec": wanted["spec"]})


def persistently(
    attempt: Callable[[], Object],
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Object:
    """`attempt` until it succeeds or time is up, for what passes: a kind not served yet, a conflict, a server away."""
    end = clock() + _WAIT_SECONDS
    while True:
        try:
            return attempt()
        except (NotFound, Conflict, Unavailable):
            if clock() >= end:
                raise
        pause(_PAUSE_SECONDS)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m koinon_operator.declare FILE", file=sys.stderr)
        return 2
    wanted = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    kube = Kube(connections=1)
    try:
        made = persistently(lambda: declare(kube, wanted))
    except KoinonError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Site {made['metadata']['name']}: generation {made['metadata'].get('generation')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
