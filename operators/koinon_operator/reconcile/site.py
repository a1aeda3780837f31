"""A hospital: what its projects stand on, what its agent is told, and what is true of it."""

import contextlib

from koinon.domain.errors import Invalid, KoinonError, NotFound, TooLarge
from koinon.domain.keys import fingerprint
from koinon_operator import metrics, status
from koinon_operator.agents import Report
from koinon_operator.documents import Hospital, read_hospital
from koinon_operator.kinds import (
    CLAIM,
    CONFIG_MAP,
    LIMIT_RANGE,
    NETWORK_POLICY,
    POD,
    RAY_CLUSTER,
    RESOURCE_QUOTA,
    SECRET,
    SERVICE_ACCOUNT,
    SITE,
    Kind,
    Object,
)
from koinon_operator.names import (
    ACCOUNT,
    CONSENTS,
    DENIAL,
    DENY_ALL,
    LIMITS,
    MANAGED_BY,
    QUOTA,
    RAY_SECRET,
    REFRESH,
    digest,
    project_of,
)
from koinon_operator.objects import consents
from koinon_operator.plan import Plan, State
from koinon_operator.reconcile import foundation, removal
from koinon_operator.reconcile.project import active, judged_in
from koinon_operator.status import Condition, false, true, unknown
from koinon_operator.world import World, project_of_grant

CLOCK_SECONDS = 300
"""How far the agent's clock and the hub's may be apart; the agent refuses rounds beyond it."""
_CLEAR_SECONDS = 2.0
_NOT_ASKED = "NotAsked"


def reconcile(world: World, home: str) -> float | None:
    """Seconds until it should be done again at the latest, None if nothing is awaited."""
    site = world.site(home)
    if site is None:
        _wake_projects(world, home, "")
        return _clear(world, home)
    for other in world.cache.select(SITE, home):
        if other is not site:
            message = f"The Site {site['metadata']['name']} is older and counts. One a namespace."
            _write(world, other, {"conditions": [false("Ready", "Duplicate", message)]})
    try:
        hospital = read_hospital(site)
    except KoinonError as error:
        _write(world, site, {"conditions": [false("Ready", "BadSpec", str(error))]})
        return None
    plans = world.plans(home)
    laid = foundation.lay(world, home, hospital, site, active(plans))
    _wake_projects(world, home, digest([site["spec"], str(laid.secret), laid.isolated.status]))
    _end_strays(world, home, site)
    told = _tell_agent(world, home, site, plans) if laid.secret is not None else []
    report = world.agents.report(home)
    conditions = [laid.isolated, *told, _kuberay(world, home), _data(world, home, hospital), *_agent(report)]
    found: Object = {"fingerprint": fingerprint(hospital.root), "grants": _counts(world, home, plans, report)}
    found |= _said(report)
    ready = status.summary(conditions, "Ready", "Grants can be served.")
    _write(world, site, {**found, "conditions": [ready, *conditions]})
    return laid.wait


def _wake_projects(world: World, home: str, ground: str) -> None:
    """Lets every project look again if what they stand on is another than the last time."""
    if world.ground.get(home) != ground:
        for project in world.plans(home):
            world.queue.add((home, project))
    world.ground[home] = ground


def _end_strays(world: World, home: str, site: Object) -> None:
    """Ray pods that have lost the label of their project would outlive it."""
    work = world.work(home)
    for pod in world.cache.select(POD, work):
        meta = pod["metadata"]
        if pod["spec"].get("serviceAccountName") == ACCOUNT and not project_of(pod) and "deletionTimestamp" not in meta:
            world.keeper.drop(POD, work, meta["name"], grace=removal.GRACE_SECONDS)
            world.recorder.warn(site, "PodRemoved", f"{meta['name']} in {work} is a Ray pod without a project.")


def _tell_agent(world: World, home: str, site: Object, plans: dict[str, Plan]) -> list[Condition]:
    """Grants and revocations as signed; then a mark on the agent's pod, so that kubelet brings them at once."""
    grants = [found.governing.consent.grant for found in plans.values() if found.governing]
    revocations = world.revocations(home, world.grants(home))
    wanted = consents.config_map(home, grants, revocations, owner=foundation.owner(site))
    try:
        world.keeper.keep(wanted, about=site)
    except (Invalid, TooLarge):
        size = sum(map(len, wanted.get("data", {}).values()))
        message = (
            f"{len(grants)} grants have {size} bytes, and a ConfigMap holds 1 MiB: the agent still has those before."
        )
        return [false("AgentInformed", "TooManyGrants", f"{message} Delete Grants that are not needed.")]
    mark = digest([wanted.get("data", {}), (world.cache.get(SECRET, home, RAY_SECRET) or {}).get("data")])
    if world.marked.get(home) != mark:
        with contextlib.suppress(NotFound):  # a pod that starts later reads them as they are
            world.kube.annotate(POD, home, world.settings.agent_pod, {REFRESH: mark})
        world.marked[home] = mark
    return [true("AgentInformed", "Informed", "The agent is given all grants and revocations.")]


def _kuberay(world: World, home: str) -> Condition:
    if RAY_CLUSTER not in world.absent:
        return true("KubeRay", "Installed", "RayClusters can be made.")
    return false("KubeRay", "Missing", "This cluster has no RayClusters. Install KubeRay, version 1.5 or newer.")


def _data(world: World, home: str, hospital: Hospital) -> Condition:
    work = world.work(home)
    missing = [data.claim for data in hospital.datasets.values() if world.cache.get(CLAIM, work, data.claim) is None]
    if missing:
        shown = ", ".join(sorted(set(missing)))
        return false("DataReady", "ClaimMissing", f"There is no PersistentVolumeClaim {shown} in {work}. Create it.")
    return true("DataReady", "Bound", f"The claims of {len(hospital.datasets)} data sets are there.")


def _agent(report: Report | None) -> list[Condition]:
    if report is None:
        return [unknown("Connected", _NOT_ASKED), unknown("ClockSynced", _NOT_ASKED)]
    if not report.reached:
        message = "The agent does not answer. Does its pod run? kubectl koinon doctor"
        return [false("Connected", "AgentUnreachable", message), unknown("ClockSynced", "AgentUnreachable", message)]
    if not report.connected:
        connected = false("Connected", "HubUnreachable", report.trouble or "The agent does not reach its hub.")
    else:
        connected = true("Connected", "Connected", "The agent reaches its hub.")
    if abs(report.clock_offset) > CLOCK_SECONDS:
        message = f"The agent's clock and the hub's are {abs(report.clock_offset) / 60:.0f} min apart. Set it (NTP)."
        return [connected, false("ClockSynced", "ClockOff", message)]
    return [connected, true("ClockSynced", "Synced")]


def _counts(world: World, home: str, plans: dict[str, Plan], report: Report | None) -> Object:
    counts = dict.fromkeys(("running", "waiting", "invalid", "ended"), 0)
    for read in world.grants(home):
        judged = judged_in(plans.get(project_of_grant(read.resource)), read)
        state = judged.state if judged else State.INVALID
        if state in (State.REVOKED, State.EXPIRED):
            counts["ended"] += 1
        elif state is not State.VALID:
            counts["invalid"] += 1
        else:
            counts["running" if status.is_true(read.resource.get("status") or {}, "Ready") else "waiting"] += 1
    for state_name, number in counts.items():
        metrics.GRANTS.labels(hospital=home, state=state_name).set(number)
    return {**counts, "pending": len(report.pending) if report else 0}


def _said(report: Report | None) -> Object:
    if report is None or not report.reached:
        return {}
    found: Object = {"agentVersion": report.version}
    if report.pending:
        found["pending"] = [{"name": name, "manifest": manifest} for name, manifest in report.pending]
    if report.last_round:
        project, run, number, when = report.last_round
        found["lastRound"] = {"project": project, "run": run, "round": number, "time": status.time_text(when)}
    return found


def _write(world: World, site: Object, found: Object) -> None:
    before: Object = site.get("status") or {}
    meta = site["metadata"]
    generation = meta.get("generation", 0)
    wanted = {**found, "observedGeneration": generation}
    wanted["conditions"] = status.conditions(before, found["conditions"], generation=generation, now=world.clock())
    if wanted == before:
        return
    if not world.write_status(SITE, site, wanted):
        return
    old, new = status.find(before, "Ready"), status.find(wanted, "Ready")
    if new and new["reason"] != _NOT_ASKED and (old is None or old["reason"] != new["reason"]):
        tell = world.recorder.say if new["status"] == "True" else world.recorder.warn
        tell(site, new["reason"], new["message"])


def refuse(world: World, home: str, error: KoinonError) -> None:
    """Says on the Site why the operator cannot start at all."""
    for site in world.cache.select(SITE, home):
        message = f"{error} The chart koinon-site gives the operator its rights."
        _write(world, site, {"conditions": [false("Ready", "NotAllowed", message)]})


def _clear(world: World, home: str) -> float | None:
    """Without a Site nothing of the hospital stays; the walls go last, once no project is left."""
    work = world.work(home)
    if any(_of_projects(world, work)):
        return _CLEAR_SECONDS
    own: list[tuple[Kind, str, str]] = [
        (SECRET, work, RAY_SECRET),
        (CONFIG_MAP, work, DENIAL),
        (SERVICE_ACCOUNT, work, ACCOUNT),
        (LIMIT_RANGE, work, LIMITS),
        (RESOURCE_QUOTA, work, QUOTA),
        (SECRET, home, RAY_SECRET),
        (CONFIG_MAP, home, CONSENTS),
        (NETWORK_POLICY, work, DENY_ALL),
    ]
    for kind, namespace, name in own:
        found = world.cache.get(kind, namespace, name)
        if found is not None and MANAGED_BY in (found["metadata"].get("labels") or {}):
            world.keeper.drop(kind, namespace, name)
    world.marked.pop(home, None)
    return None


def _of_projects(world: World, work: str) -> list[Object]:
    pods = [pod for pod in world.cache.select(POD, work) if project_of(pod)]
    return [*world.cache.select(RAY_CLUSTER, work), *pods]
