"""The status of a Grant, composed from what was judged, built or removed. Pure."""

from dataclasses import dataclass

from koinon_operator import egress, observe, status
from koinon_operator.kinds import Object
from koinon_operator.names import short
from koinon_operator.plan import Judged, Plan, State
from koinon_operator.reconcile.cluster import Built
from koinon_operator.reconcile.removal import Left
from koinon_operator.status import Condition, false, true
from koinon_operator.verify import Problem

_NOT_TRIED = egress.condition(())
ENDED = {State.REVOKED: "Revoked", State.EXPIRED: "Expired"}


@dataclass(frozen=True)
class Facts:
    """What is known of a Grant. `left`: of its project, if that is being removed; None while it lives.

    `problem` says why a Grant that could not even be read was not judged.
    """

    resource: Object
    judged: Judged | None
    plan: Plan | None
    now: float
    problem: Problem | None = None
    built: Built | None = None
    left: Left | None = None
    began: float | None = None
    """When this look at it began; its end is not before."""
    cluster: str = ""
    wanted_workers: int = 0

    @property
    def before(self) -> Object:
        found: Object = self.resource.get("status") or {}
        return found

    @property
    def governs(self) -> bool:
        return self.judged is not None and self.plan is not None and self.judged is self.plan.governing

    @property
    def ended(self) -> str:
        """The condition by which it ended, "" if it has not."""
        return ENDED.get(self.judged.state, "") if self.judged else ""


def compose(facts: Facts) -> Object:
    generation = facts.resource["metadata"].get("generation", 0)
    found: Object = {"observedGeneration": generation}
    if facts.judged is not None:
        found["project"] = facts.judged.project or short(facts.judged.consent.manifest)
        found["expires"] = status.time_text(facts.judged.consent.grant.expires)
    if facts.ended:
        removal = _removal(facts)
        found["removal"] = removal
        said = _ended(facts, removal)
    else:
        said = _lives(facts)
    if facts.governs and facts.cluster:
        found |= {"cluster": facts.cluster, "wantedWorkers": facts.wanted_workers}
        found["workers"] = facts.built.workers if facts.built else 0
    found["conditions"] = status.conditions(facts.before, said, generation=generation, now=facts.now)
    return found


def _lives(facts: Facts) -> list[Condition]:
    problem = facts.judged.problem if facts.judged is not None else facts.problem
    if problem is not None:
        refused = false("Verified", problem.reason, problem.message)
        rest = [refused, _NOT_TRIED, false(observe.TYPE, "NotWanted", problem.message)]
    else:
        rest = [true("Verified", "Valid", "The root key signed it, and it fits this hospital.")]
        rest += facts.built.conditions if facts.built else []
    ready = status.summary(rest, "Ready", "Training can run.")
    return [ready, *rest, false("Expired", "Valid"), _not_revoked(facts)]


def _not_revoked(facts: Facts) -> Condition:
    judged = facts.judged
    told = judged.consent.revocation if judged is not None and judged.state is not State.INVALID else None
    if judged is None or told is None:
        return false("Revoked", "NotRevoked")
    message = (
        f"Its revocation ends what was granted until {status.time_text(told.time)}; this was granted later and holds. "
        "If it should have ended, check the clocks and revoke again: kubectl koinon revoke"
    )
    return false("Revoked", "RevocationOlder", message)


def _ended(facts: Facts, removal: Object) -> list[Condition]:
    ended, left, plan = facts.ended, facts.left, facts.plan
    cluster = false(observe.TYPE, "Removed", "The cluster is gone.")
    if plan is not None and plan.governing is not None:
        main = true(ended, ended, f"The project goes on under the Grant {plan.governing.consent.name}.")
        cluster = false(observe.TYPE, "NotWanted", main.message)
    elif left is not None and left.gone:
        main = true(ended, ended, f"Nothing is left of its cluster, after {removal['seconds']:g} s.")
    else:
        main = false(ended, "Ending", f"Being removed; left: {left.what if left else 'unknown'}.")
        cluster = false(observe.TYPE, "Removed", main.message)
    other = false("Expired", "Valid") if ended == "Revoked" else false("Revoked", "NotRevoked")
    ready = false("Ready", main.reason, main.message)
    return [ready, true("Verified", "Valid", "The root key signed it."), _NOT_TRIED, cluster, main, other]


def _removal(facts: Facts) -> Object:
    """When the end began and how many seconds it took; kept once it is over."""
    known: Object = facts.before.get("removal") or {}
    over = status.is_true(facts.before, facts.ended)
    if over and "seconds" in known:
        return known
    start = facts.now if facts.began is None else facts.began
    began = start if over or "seconds" in known else float(known.get("began", start))
    if facts.left is not None and not facts.left.gone:
        return {"began": round(began, 3)}
    return {"began": round(began, 3), "seconds": round(max(0.0, facts.now - began), 1)}
