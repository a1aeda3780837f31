"""A granted project's cluster, built in order: walls, Service, RayCluster; and its pods held to their template."""

from dataclasses import dataclass, field

from koinon.domain.errors import Forbidden, KoinonError, NotFound
from koinon_operator import egress, observe, pod_drift
from koinon_operator.documents import Hospital
from koinon_operator.keeper import Kept, Outcome
from koinon_operator.kinds import CLAIM, EVENT, POD, RAY_CLUSTER, Object
from koinon_operator.names import HEAD, NODE, TEMPLATE, WORKER, cluster
from koinon_operator.objects import accounts, pods, raycluster, tokens, walls
from koinon_operator.plan import Judged
from koinon_operator.reconcile import removal
from koinon_operator.status import Condition, false, true, unknown
from koinon_operator.world import World


@dataclass(frozen=True)
class Order:
    """What is to be built, and for whom. `waiting_since`: when the cluster was last ready, or first wanted."""

    home: str
    project: str
    grant: Object
    judged: Judged
    hospital: Hospital
    secret: bytes
    workers: int | None
    waiting_since: float


@dataclass
class Built:
    """What came of it. `wait`: seconds until the next look, if nothing happens before."""

    conditions: list[Condition] = field(default_factory=list)
    workers: int = 0
    wait: float | None = None


def build(world: World, order: Order) -> Built:
    """One pass over all steps; each may end it. Raises what may work later."""
    if order.workers is None:
        return _no_room(world, order)
    contested = _walls(world, order)
    if contested is not None:
        return contested
    work = world.work(order.home)
    service = world.keeper.keep(accounts.head_service(work, order.project), about=order.grant)
    if not service.there or service.live is None:
        return _not_there(world, order, "head's Service", service)
    data = _data(world, order)
    if data.status != "True":
        return _not_ready(world, order, data.reason, data.message, data=data)
    wanted = _wanted(order, service.live["spec"]["clusterIP"], world.settings.cluster_domain)
    try:
        kept = world.keeper.keep(wanted, about=order.grant)
    except NotFound:
        message = "This cluster has no RayClusters. Install KubeRay, version 1.5 or newer."
        return _not_ready(world, order, "KubeRayMissing", message, data=data, wait=10.0)
    except Forbidden as error:
        message = f"{error.what} The chart koinon-site gives that right."
        return _not_ready(world, order, "NotAllowed", message, data=data)
    if not kept.there or kept.live is None:
        return _not_there(world, order, "RayCluster", kept)
    return _pods(world, order, wanted, kept.live, data)


def _walls(world: World, order: Order) -> Built | None:
    """What the project needs open within deny-all. While someone else keeps changing that, nothing may run."""
    work = world.work(order.home)
    for wanted in (
        walls.project(work, order.project, monitoring=order.hospital.monitoring),
        walls.head_policy(work, order.project, home=order.home),
    ):
        kept = world.keeper.keep(wanted, about=order.grant)
        if not kept.there:
            name = wanted["metadata"]["name"]
            message = f"Someone keeps changing the NetworkPolicy {name}; the cluster is stopped until that ends."
            removal.stop(world, order.home, order.project)
            denied = false(egress.TYPE, "PolicyContested", message)
            return Built([denied, false(observe.TYPE, "Removed", message)], wait=kept.wait or 1.0)
    return None


def _no_room(world: World, order: Order) -> Built:
    removal.stop(world, order.home, order.project)
    message = (
        "All projects of this hospital together have its quota. It starts when another ends, or with a higher quota."
    )
    return _not_ready(world, order, "QuotaExhausted", message, data=_data(world, order), wait=None)


def _data(world: World, order: Order) -> Condition:
    dataset = order.hospital.datasets[order.judged.consent.grant.dataset]
    found = world.cache.get(CLAIM, world.work(order.home), dataset.claim)
    if found is None:
        message = f"There is no PersistentVolumeClaim {dataset.claim} in {world.work(order.home)}. Create it."
        return false("DataAvailable", "ClaimMissing", message)
    phase = found.get("status", {}).get("phase", "Pending")
    if phase == "Lost":
        return false("DataAvailable", "ClaimLost", f"The volume of the claim {dataset.claim} is gone.")
    return true("DataAvailable", "Bound" if phase == "Bound" else "ForFirstPod", f"Claim {dataset.claim} is {phase}.")


def _wanted(order: Order, address: str, domain: str) -> Object:
    grant = order.judged.consent.grant
    ray = pods.Ray(
        order.project, order.hospital, order.hospital.datasets[grant.dataset], grant.resources, address, domain
    )
    return raycluster.build(ray, workers=order.workers or 0, token=tokens.token(order.secret, grant.manifest))


def _not_ready(
    world: World, order: Order, reason: str, message: str, *, data: Condition | None = None, wait: float | None = 30.0
) -> Built:
    denied = egress.condition(world.cache.select(POD, world.work(order.home), order.project))
    known = data or unknown("DataAvailable", "NotTried", "")
    return Built([known, denied, false(observe.TYPE, reason, message)], wait=wait)


def _not_there(world: World, order: Order, what: str, kept: Kept) -> Built:
    """Pods that may be of something else than what is wanted do not run on."""
    if kept.outcome is Outcome.CONTESTED:
        removal.stop(world, order.home, order.project, (RAY_CLUSTER, POD))
        message = f"Someone keeps changing the {what}; the cluster is stopped until that ends."
        return _not_ready(world, order, "Contested", message, wait=kept.wait or 1.0)
    removal.stop(world, order.home, order.project, (POD,))
    return _not_ready(world, order, "Creating", f"The {what} is being made anew.", wait=1.0)


def _pods(world: World, order: Order, wanted: Object, live: Object, data: Condition) -> Built:
    work = world.work(order.home)
    found = world.cache.select(POD, work, order.project)
    _mend(world, order, wanted, live, found)
    resources = order.judged.consent.grant.resources
    now = world.clock()
    waiting = observe.Waiting(order.waiting_since, now, world.settings.cluster_timeout)
    denied = egress.condition(found)
    ready = observe.condition(found, least=resources.min_workers, wanted=order.workers or 0, waiting=waiting)
    if ready.reason == "ClusterTimeout":
        hint = _hint(world, live)
        told = observe.Waiting(waiting.since, now, waiting.limit, hint)
        ready = observe.condition(found, least=resources.min_workers, wanted=order.workers or 0, waiting=told)
        world.recorder.warn(order.grant, "ClusterTimeout", ready.message)
    if denied.reason == "Reachable":
        world.recorder.warn(order.grant, "EgressReachable", denied.message)
    wait = None
    if ready.status != "True":
        wait = 60.0 if waiting.too_long else max(0.1, waiting.since + waiting.limit - now)
    return Built([data, denied, ready], workers=observe.ready_workers(found), wait=wait)


def _mend(world: World, order: Order, wanted: Object, live: Object, found: list[Object]) -> None:
    """Deletes pods that are not of this cluster as it is wanted; KubeRay makes them anew."""
    bad = {}
    for pod in found:
        why = "" if pod["metadata"].get("deletionTimestamp") else _why_not(pod, wanted, live)
        if why:
            bad[pod["metadata"]["name"]] = why
    place = f"pods of {order.project} in {order.home}"
    if not bad or not world.keeper.repair(place, POD):
        return
    for name, why in bad.items():
        world.keeper.drop(POD, world.work(order.home), name)
        world.recorder.say(order.grant, "PodReplaced", f"{name}: {why}")


def _why_not(pod: Object, wanted: Object, live: Object) -> str:
    """Why a pod must go, "" if it may stay."""
    meta = pod["metadata"]
    owners = [reference.get("uid") for reference in meta.get("ownerReferences") or []]
    node = meta.get("labels", {}).get(NODE)
    if live["metadata"]["uid"] not in owners:
        return "it is not of this RayCluster."
    if node not in (HEAD, WORKER) or (node == WORKER and not wanted["spec"].get("workerGroupSpecs")):
        return "it is neither head nor worker."
    template = raycluster.template_of(wanted, node)
    if (meta.get("annotations") or {}).get(TEMPLATE) != template["metadata"]["annotations"][TEMPLATE]:
        return "it was made before the last change."
    paths = pod_drift.differences(template, pod)
    return f"it is not as its template wants: {', '.join(paths[:3])}." if paths else ""


def _hint(world: World, live: Object) -> str:
    """KubeRay's last warning about the RayCluster."""
    meta = live["metadata"]
    try:
        found, _ = world.kube.list(EVENT, meta["namespace"], field=f"involvedObject.uid={meta['uid']},type=Warning")
    except KoinonError:
        return ""
    newest = max(found, key=lambda event: str(event.get("lastTimestamp") or ""), default={})
    return str(newest.get("message", ""))[:300]


def cluster_of(world: World, home: str, project: str) -> Object | None:
    return world.cache.get(RAY_CLUSTER, world.work(home), cluster(project))
