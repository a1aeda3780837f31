"""One project of one hospital: from its Grants to a cluster, or to nothing; and what is true of each Grant."""

from koinon_operator import egress, metrics, observe, status
from koinon_operator.kinds import GRANT, Object
from koinon_operator.names import short
from koinon_operator.objects import raycluster
from koinon_operator.plan import Judged, Plan
from koinon_operator.reconcile import cluster, foundation, removal
from koinon_operator.reconcile.cluster import Built, Order
from koinon_operator.reconcile.grant_status import Facts, compose
from koinon_operator.status import Condition, false
from koinon_operator.world import Key, Read, World

_SETTLE_SECONDS = 0.2  # lets several changed projects be told to the agent at once


def reconcile(world: World, home: str, project: str) -> float | None:
    """Seconds until it should be done again at the latest, None if nothing is awaited."""
    plans = world.plans(home)
    plan, reads = plans.get(project), world.grants(home, project)
    governing = _read_of(plan.governing, reads) if plan and plan.governing else None
    if plan is None or governing is None:
        return _nothing(world, home, project, plan, reads, plans)
    built = _build(world, home, project, plans, plan, governing)
    live = cluster.cluster_of(world, home, project)
    changed = False
    for read in reads:
        facts = Facts(
            read.resource,
            judged_in(plan, read),
            plan,
            world.clock(),
            problem=read.verdict.problem,
            built=built,
            cluster=live["metadata"]["name"] if live else "",
            wanted_workers=raycluster.replicas(live) if live else 0,
        )
        changed |= _write(world, facts)
    if changed:
        _tell_others(world, home, project, plans)
    return _earliest(built.wait, _until(plan, world))


def _build(world: World, home: str, project: str, plans: dict[str, Plan], plan: Plan, read: Read) -> Built:
    hospital, site = world.hospital(home), world.site(home)
    if hospital is None or site is None or plan.governing is None:  # gone since the plan was made
        return Built(wait=1.0)
    laid = foundation.lay(world, home, hospital, site, active(plans))
    if laid.secret is None:
        world.queue.add((home, ""))  # the Site says so, and has all projects look
        if laid.stops:
            removal.stop(world, home, project)
        told = Condition(egress.TYPE, "False", laid.isolated.reason, laid.isolated.message)
        return Built([told, false(observe.TYPE, "NotIsolated", laid.isolated.message)], wait=laid.wait)
    since = status.since(read.resource.get("status") or {}, observe.TYPE, "False")
    workers = world.share(home, plans).get(project)
    order = Order(home, project, read.resource, plan.governing, hospital, laid.secret, workers, since or world.clock())
    return cluster.build(world, order)


def _nothing(
    world: World, home: str, project: str, plan: Plan | None, reads: list[Read], plans: dict[str, Plan]
) -> float | None:
    """No Grant is valid now: nothing may be left, and where there was something that is proven."""
    began = world.clock()
    look = removal.anything(world, home, project) or not all(_told(read, plan) for read in reads)
    if look and not reads and _still_granted(world, home, project):
        return 1.0
    left = removal.remove(world, home, project) if look else removal.Left()
    hospital, site = world.hospital(home), world.site(home)
    if look and hospital and site:
        foundation.lay(world, home, hospital, site, active(plans))  # without the project's token
    changed = look and left.gone
    for read in reads:
        judged = judged_in(plan, read)
        facts = Facts(read.resource, judged, plan, world.clock(), problem=read.verdict.problem, left=left, began=began)
        changed |= _write(world, facts)
    if look and left.gone and not reads and site:
        world.recorder.say(site, "ProjectRemoved", f"Nothing is left of the project {project}, which has no Grant.")
    if changed:
        _tell_others(world, home, project, plans)
    return _earliest(_look_again(world, (home, project), left), _until(plan, world) if plan else None)


def _look_again(world: World, key: Key, left: removal.Left) -> float | None:
    if left.gone:
        world.removing.pop(key, None)
        return None
    now = world.clock()
    return removal.look_again(world.removing.setdefault(key, now), now)


def _still_granted(world: World, home: str, project: str) -> bool:
    """Asked of the API server before anything is removed for want of a Grant, in case that the cache missed it."""
    found, _ = world.kube.list(GRANT, home)
    for obj in found:
        world.cache.put(GRANT, obj)
    return any(short(str(obj["spec"].get("manifest", ""))) == project for obj in found)


def _told(read: Read, plan: Plan | None) -> bool:
    """Whether the Grant's status says already that nothing is left; then the API server is not asked again."""
    facts = Facts(read.resource, judged_in(plan, read), plan, 0.0)
    return not facts.ended or status.is_true(facts.before, facts.ended)


def active(plans: dict[str, Plan]) -> list[str]:
    """Manifests that are granted now."""
    return sorted(found.governing.consent.manifest for found in plans.values() if found.governing)


def judged_in(plan: Plan | None, read: Read) -> Judged | None:
    """What the plan says of a Grant; None of one that could not be read."""
    if plan is None or read.consent is None:
        return None
    return next((found for found in plan.grants if found.consent.uid == read.consent.uid), None)


def _read_of(judged: Judged, reads: list[Read]) -> Read | None:
    return next((read for read in reads if read.consent and read.consent.uid == judged.consent.uid), None)


def _write(world: World, facts: Facts) -> bool:
    """Writes the status if it is another one. True if more than a message changed."""
    before, wanted = facts.before, compose(facts)
    if wanted == before or not world.write_status(GRANT, facts.resource, wanted):
        return False
    if "seconds" in wanted.get("removal", {}) and "seconds" not in before.get("removal", {}):
        metrics.REMOVAL_SECONDS.observe(wanted["removal"]["seconds"])
    _announce(world, facts.resource, before, wanted)
    return _truths(before) != _truths(wanted) or before.get("wantedWorkers") != wanted.get("wantedWorkers")


def _truths(found: Object) -> list[tuple[str, str, str]]:
    return [(c["type"], c["status"], c["reason"]) for c in found.get("conditions") or []]


def _announce(world: World, grant: Object, before: Object, wanted: Object) -> None:
    """An event where something that an admin should know became true."""
    for kind in ("Verified", "Ready", "Expired", "Revoked"):
        old, new = status.find(before, kind), status.find(wanted, kind)
        if new is None or (old is not None and (old["status"], old["reason"]) == (new["status"], new["reason"])):
            continue
        if kind == "Verified" and new["status"] == "False":
            world.recorder.warn(grant, new["reason"], new["message"])
        elif kind != "Verified" and new["status"] == "True":
            world.recorder.say(grant, new["reason"], new["message"])


def _tell_others(world: World, home: str, project: str, plans: dict[str, Plan]) -> None:
    """The site tells the agent; projects whose share of the quota is another one now look at it again."""
    world.queue.add_after((home, ""), _SETTLE_SECONDS)
    for other, workers in world.share(home, plans).items():
        live = cluster.cluster_of(world, home, other)
        if other != project and workers != (raycluster.replicas(live) if live else None):
            world.queue.add((home, other))


def _until(plan: Plan, world: World) -> float | None:
    change = plan.next_change
    return None if change is None else max(0.05, change - world.clock())


def _earliest(*times: float | None) -> float | None:
    return min((found for found in times if found is not None), default=None)
