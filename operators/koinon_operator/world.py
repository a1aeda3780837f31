"""All that a reconcile works with: what was read, what can be done, and what was found out about the Grants so far."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from koinon.domain.errors import Invalid, KoinonError, NotFound
from koinon.domain.grant import Revocation
from koinon_operator import plan, verify, workers
from koinon_operator.agents import Agents
from koinon_operator.cache import Cache
from koinon_operator.documents import Consent, Hospital, read_grant, read_hospital
from koinon_operator.events import Recorder
from koinon_operator.keeper import Keeper
from koinon_operator.kinds import CONFIG_MAP, GRANT, RAY_CLUSTER, SITE, Kind, Object
from koinon_operator.kube import Kube
from koinon_operator.lookup import Lookup
from koinon_operator.names import CONSENTS, cluster, short
from koinon_operator.objects import consents as consent_objects
from koinon_operator.plan import Plan
from koinon_operator.queue import Queue
from koinon_operator.settings import Settings
from koinon_operator.verify import Problem, Verdict

log = logging.getLogger("koinon.operator")

Key = tuple[str, str]
"""(home namespace, project), or (home namespace, "") for the site. Of one hospital one key is worked on at a time."""

NO_SITE = Problem(
    "NoSite", "This namespace has no Site that can be served. Mend it as its conditions say, or make one (koinon-site)."
)


@dataclass(frozen=True)
class Read:
    """A Grant as read: `consent` is None if it cannot be."""

    resource: Object
    consent: Consent | None
    verdict: Verdict


@dataclass
class World:
    settings: Settings
    kube: Kube
    cache: Cache
    keeper: Keeper
    recorder: Recorder
    queue: Queue[Key]
    agents: Agents
    lookup: Lookup
    clock: Callable[[], float] = time.time
    marked: dict[str, str] = field(default_factory=dict)
    """By home: digest of what the agent's pod was last told to read."""
    ground: dict[str, str] = field(default_factory=dict)
    """By home: digest of the Site and the secret that its projects were last built on."""
    removing: dict[Key, float] = field(default_factory=dict)
    """Since when something is left of a project that is over."""
    absent: set[Kind] = field(default_factory=set)
    """Kinds that this cluster does not know."""
    _read: dict[str, dict[tuple[Any, ...], Read]] = field(default_factory=dict)
    _revoked: dict[str, dict[str, Revocation]] = field(default_factory=dict)  # by home and manifest
    _trusted: dict[tuple[str, str], bool] = field(default_factory=dict)

    def work(self, home: str) -> str:
        return self.settings.hospitals[home]

    def site(self, home: str) -> Object | None:
        """The Site of a namespace; of several the oldest."""
        found = self.cache.select(SITE, home)
        return min(found, key=lambda obj: (obj["metadata"]["creationTimestamp"], obj["metadata"]["name"]), default=None)

    def hospital(self, home: str) -> Hospital | None:
        """None if there is no Site, or none that this operator can serve."""
        found = self.site(home)
        try:
            return read_hospital(found) if found else None
        except Invalid:
            return None

    def grants(self, home: str, project: str = "") -> list[Read]:
        """The Grants of a namespace, or of a project, each with what does not change with time."""
        site, hospital = self.site(home), self.hospital(home)
        against = (site["metadata"]["uid"], site["metadata"].get("generation")) if site and hospital else ()
        before, now = self._read.get(home, {}), {}
        for resource in self.cache.select(GRANT, home):
            meta = resource["metadata"]
            key = (meta["uid"], meta.get("generation"), *against)
            now[key] = before.get(key) or _read(resource, hospital)
            if now[key].resource is not resource:  # a newer status
                now[key] = Read(resource, now[key].consent, now[key].verdict)
        self._read[home] = now
        return [read for read in now.values() if not project or project_of_grant(read.resource) == project]

    def revocations(self, home: str, reads: Iterable[Read]) -> list[Revocation]:
        """Trusted ones: of the Grants, of Grants that are gone, which the ConfigMap keeps, and all that this process
        has seen, so that an edit by hand of the ConfigMap takes none back."""
        hospital = self.hospital(home)
        if hospital is None:
            return []
        known = [read.consent.revocation for read in reads if read.consent and read.consent.revocation]
        kept = consent_objects.kept_revocations(self.cache.get(CONFIG_MAP, home, CONSENTS))
        found = self._revoked.setdefault(home, {})
        for revocation in (*known, *kept):
            newest = found.get(revocation.manifest)
            if (newest is None or revocation.time > newest.time) and self._trusts(revocation, hospital):
                found[revocation.manifest] = revocation
        return [revocation for revocation in found.values() if self._trusts(revocation, hospital)]

    def plans(self, home: str) -> dict[str, Plan]:
        """The plan of each project of a hospital that has Grants."""
        reads = self.grants(home)
        revocations = self.revocations(home, reads)
        by_project: dict[str, list[Read]] = {}
        for read in reads:
            by_project.setdefault(project_of_grant(read.resource), []).append(read)
        return {
            project: plan.make(
                [read.consent for read in found if read.consent],
                {read.consent.uid: read.verdict for read in found if read.consent},
                revocations,
                self.clock(),
            )
            for project, found in by_project.items()
        }

    def share(self, home: str, plans: dict[str, Plan]) -> dict[str, int | None]:
        """Workers of each project that is granted now; None for one that has to wait for room."""
        hospital = self.hospital(home)
        if hospital is None:
            return {}
        claims = [
            workers.Claim(
                project,
                found.governing.consent.grant.resources,
                found.governing.consent.grant.not_before,
                self.cache.get(RAY_CLUSTER, self.work(home), cluster(project)) is not None,
            )
            for project, found in plans.items()
            if found.governing is not None
        ]
        return workers.distribute(hospital.quota, claims)

    def write_status(self, kind: Kind, resource: Object, wanted: Object) -> bool:
        """Writes the status of a Site or Grant. False if that is gone, which the cache had missed."""
        meta = resource["metadata"]
        try:
            self.cache.put(kind, self.kube.patch_status(kind, meta["namespace"], meta["name"], wanted))
        except NotFound:
            self.cache.remove(kind, meta["namespace"], meta["name"], uid=meta["uid"])
            self.queue.add((meta["namespace"], project_of_grant(resource) if kind == GRANT else ""))
            return False
        return True

    def _trusts(self, revocation: Revocation, hospital: Hospital) -> bool:
        key = (hospital.root, revocation.digest())
        if key not in self._trusted:
            if len(self._trusted) > 10_000:
                self._trusted.clear()
            self._trusted[key] = verify.trusted_revocation(revocation, hospital)
        return self._trusted[key]


def project_of_grant(resource: Object) -> str:
    return short(str(resource["spec"].get("manifest", "")))


def _read(resource: Object, hospital: Hospital | None) -> Read:
    """Never raises: whatever one Grant says, the others must still begin and end."""
    consent = None
    try:
        consent = read_grant(resource)
        return Read(resource, consent, verify.check(consent, hospital) if hospital else Verdict(NO_SITE))
    except Exception as error:
        what = verify.said(error)
        log.warning("Grant %s: %s", resource["metadata"]["name"], what, exc_info=not isinstance(error, KoinonError))
        return Read(resource, consent, Verdict(Problem("Malformed", f"{what} Grant again."), forged=True))
