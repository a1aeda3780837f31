"""What the agent counts, for its hospital's monitoring. Labels are closed sets: no run or project makes a series."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from koinon.domain import refusals
from koinon.domain.run import Kind, Phase

STATES = ("away", "starting", "ready")
RESULTS = ("done", "put_off", "refused", "failed")
PHASES = tuple(phase for phase in Phase if phase not in (Phase.DONE, Phase.FAILED))
_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200)


class Meter:
    """One registry per agent. Thread-safe."""

    def __init__(self) -> None:
        self.registry = of = CollectorRegistry()
        self.rounds = Counter("koinon_agent_rounds", "Rounds whose work here is done.", ["kind"], registry=of)
        self.phases = Counter("koinon_agent_phases", "Phases worked on.", ["phase", "result"], registry=of)
        self.seconds = Histogram(
            "koinon_agent_phase_seconds", "Seconds that a phase took here.", ["phase"], buckets=_SECONDS, registry=of
        )
        self.refusals = Counter("koinon_agent_refusals", "Tasks refused, by the policy's code.", ["code"], registry=of)
        self.starts = Counter("koinon_agent_trainer_starts", "Trainers started, or found again.", registry=of)
        self.losses = Counter("koinon_agent_trainer_losses", "Connections to trainers that broke.", registry=of)
        for code in refusals.CODES:
            self.refusals.labels(code)
        for kind in Kind:
            self.rounds.labels(kind)
        for phase in PHASES:
            self.seconds.labels(phase)
            for result in RESULTS:
                self.phases.labels(phase, result)
