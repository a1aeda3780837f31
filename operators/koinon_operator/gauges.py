"""What is so now, for Prometheus: read from the cache when it asks, so that what is gone leaves no series behind."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from koinon.domain.errors import Invalid
from koinon_operator import quantity, status
from koinon_operator.cache import Cache
from koinon_operator.kinds import GRANT, POD, RESOURCE_QUOTA, Object
from koinon_operator.names import QUOTA, project_of

CONDITIONS = ("Ready", "Verified", "DataAvailable", "EgressDenied", "ClusterReady")
_TRUTHS = ("True", "False", "Unknown")
_ENDED = ("Expired", "Revoked")
_PHASES = ("Pending", "Running", "Failed")


def text(cache: Cache, hospitals: Mapping[str, str]) -> bytes:
    """All metrics of the operator; `hospitals`: home → work namespace."""
    now = CollectorRegistry()
    now.register(Gauges(cache, hospitals))
    return generate_latest() + generate_latest(now)


class Gauges(Collector):
    def __init__(self, cache: Cache, hospitals: Mapping[str, str]) -> None:
        self._cache, self._hospitals = cache, hospitals

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "koinon_operator_hospital_info", "A hospital's two namespaces.", labels=["hospital", "work_namespace"]
        )
        conditions = GaugeMetricFamily(
            "koinon_operator_conditions",
            "Grants that have not ended, by the truth of a condition.",
            labels=["hospital", "condition", "status"],
        )
        quota = GaugeMetricFamily(
            "koinon_operator_quota",
            "The work namespace's quota: what it allows and what is used, in cores, bytes or pieces.",
            labels=["hospital", "resource", "kind"],
        )
        pods = GaugeMetricFamily("koinon_operator_pods", "Ray pods, by phase.", labels=["hospital", "phase"])
        for home, work in self._hospitals.items():
            info.add_metric([home, work], 1)
            for (condition, truth), number in self._conditions(home).items():
                conditions.add_metric([home, condition, truth], number)
            for (resource, kind), amount in self._quota(work).items():
                quota.add_metric([home, resource, kind], amount)
            phases = [
                (pod.get("status") or {}).get("phase") for pod in self._cache.select(POD, work) if project_of(pod)
            ]
            for phase in _PHASES:
                pods.add_metric([home, phase], phases.count(phase))
        yield from (info, conditions, quota, pods)

    def _conditions(self, home: str) -> dict[tuple[str, str], int]:
        counts = {(condition, truth): 0 for condition in CONDITIONS for truth in _TRUTHS}
        for grant in self._cache.select(GRANT, home):
            told: Object = grant.get("status") or {}
            superseded = (status.find(told, "Verified") or {}).get("reason") == "Superseded"
            if superseded or any(status.is_true(told, ended) for ended in _ENDED):
                continue
            for condition in CONDITIONS:
                truth = (status.find(told, condition) or {}).get("status", "Unknown")
                counts[condition, truth if truth in _TRUTHS else "Unknown"] += 1
        return counts

    def _quota(self, work: str) -> dict[tuple[str, str], float]:
        told: Object = (self._cache.get(RESOURCE_QUOTA, work, QUOTA) or {}).get("status") or {}
        found = {}
        for kind in ("hard", "used"):
            for resource, value in (told.get(kind) or {}).items():
                try:
                    found[resource, kind] = float(quantity.parse(value))
                except Invalid:  # the API server wrote it; one that is read otherwise is no reason to show nothing
                    continue
        return found
