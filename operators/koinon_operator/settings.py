"""What the operator is told by its environment; the charts set it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from koinon.domain.errors import Invalid
from koinon.domain.ids import require_name


@dataclass(frozen=True)
class Settings:
    """`hospitals`: home namespace → work namespace. Times in seconds. `agent_url` may name the {namespace}."""

    hospitals: Mapping[str, str]
    agent_url: str = "http://koinon-agent.{namespace}.svc:8472"
    agent_pod: str = "koinon-agent-0"
    health_port: int = 8480
    resync_seconds: float = 300.0
    cluster_timeout: float = 300.0
    agent_seconds: float = 5.0
    cluster_domain: str = "cluster.local"
    threads: int = 2
    log_level: str = "INFO"
    homes: Mapping[str, str] = field(init=False)
    """Work namespace → home namespace."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "homes", {work: home for home, work in self.hospitals.items()})
        if len(self.homes) != len(self.hospitals) or set(self.homes) & set(self.hospitals):
            raise Invalid("Each hospital has two namespaces of its own.", where="KOINON_HOSPITALS")


def read(environment: Mapping[str, str]) -> Settings:
    """Raises Invalid that names the variable."""
    return Settings(
        hospitals=_hospitals(environment),
        agent_url=environment.get("KOINON_AGENT_URL", Settings.agent_url),
        agent_pod=environment.get("KOINON_AGENT_POD", Settings.agent_pod),
        health_port=int(_number(environment, "KOINON_HEALTH_PORT", Settings.health_port)),
        resync_seconds=_number(environment, "KOINON_RESYNC_SECONDS", Settings.resync_seconds),
        cluster_timeout=_number(environment, "KOINON_CLUSTER_TIMEOUT", Settings.cluster_timeout),
        agent_seconds=_number(environment, "KOINON_AGENT_SECONDS", Settings.agent_seconds),
        cluster_domain=environment.get("KOINON_CLUSTER_DOMAIN", Settings.cluster_domain),
        log_level=environment.get("KOINON_LOG_LEVEL", Settings.log_level).upper(),
    )


def _hospitals(environment: Mapping[str, str]) -> dict[str, str]:
    """One hospital by two variables, or several by a list of pairs."""
    given = environment.get("KOINON_HOSPITALS")
    if given is None:
        home, work = (environment.get(name, "") for name in ("KOINON_NAMESPACE", "KOINON_WORK_NAMESPACE"))
        return {require_name(home, where="KOINON_NAMESPACE"): require_name(work, where="KOINON_WORK_NAMESPACE")}
    hospitals: dict[str, str] = {}
    for pair in given.split(","):
        home, _, work = pair.strip().partition(":")
        hospitals[require_name(home, where="KOINON_HOSPITALS")] = require_name(work, where="KOINON_HOSPITALS")
    return hospitals


def _number(environment: Mapping[str, str], name: str, otherwise: float) -> float:
    try:
        return float(environment.get(name) or otherwise)
    except ValueError:
        raise Invalid(f'"{environment[name]}" is no number.', where=name) from None
