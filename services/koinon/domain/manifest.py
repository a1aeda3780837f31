"""The manifest: one immutable document that is a project, and the root of all trust in it (DESIGN.md)."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from koinon.domain import layout, metrics, parameters
from koinon.domain.contract import Cohorts, Contract, Number
from koinon.domain.ids import Hash, Name, PublicKey
from koinon.domain.keys import Wire, fingerprint
from koinon.domain.layout import Layout, Model, Segment
from koinon.domain.parameters import Parameters, Schema

STRATEGIES = ("fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad")
CONTROLLED = ("scaffold",)  # strategies whose sites send control variates too
MAX_PACKAGE = 100 * 2**20


class Member(Wire):
    site: Name
    root: PublicKey


class Hub(Wire):
    """The keys that the manifest pins: the hub signs artifacts, and opens what is sealed to its recipient."""

    signing: PublicKey
    recipient: str = Field(pattern=r"^age1[0-9a-z]{58}$")


class Limits(Wire):
    """Over the project's life: rounds, released results; and upload bytes a site and round."""

    rounds: int = Field(default=10_000, ge=1)
    round_bytes: int = Field(default=8 * 2**30, ge=1)
    releases: int = Field(default=100, ge=1)


class Protection(Wire):
    """Public bounds of what a site contributes, and the smallest crowd it hides in."""

    clip: Number = "1000"
    control_clip: Number = "1000"
    row_cap: int = Field(default=1_000, ge=1, le=1_000_000)
    weighting: Literal["rows", "uniform"] = "rows"
    min_sites: int = Field(default=3, ge=3)
    min_others: int = Field(default=2, ge=2)
    noise: None = None  # epsilon is infinite until a later manifest version says otherwise


def _positive(seconds: int) -> int:
    if seconds <= 0:
        raise ValueError("a deadline is a positive number of seconds")
    return seconds


class Deadlines(Wire):
    """Seconds: for local training (with the first keys), and for each later phase."""

    train: Annotated[int, AfterValidator(_positive)] = 3_600
    phase: Annotated[int, AfterValidator(_positive)] = 300


class Recipient(Wire):
    """Who may read results: a name for people and an age recipient."""

    name: Name
    recipient: str = Field(pattern=r"^age1[0-9a-z]{58}$")


def _everyone() -> Cohorts:
    return {"all": ()}


class Manifest(Wire):
    version: Literal[1] = 1
    name: Name
    purpose: str = Field(min_length=1, max_length=2_000)
    created: int
    hub: Hub
    members: tuple[Member, ...] = Field(min_length=3)
    model: Model
    image: str = "embedded"
    contract: Contract
    cohorts: Cohorts = Field(default_factory=_everyone)
    metrics: tuple[str, ...]
    parameters: Schema
    limits: Limits = Limits()
    protection: Protection = Protection()
    deadlines: Deadlines = Deadlines()
    recipients: tuple[Recipient, ...] = Field(min_length=1)
    predecessor: Hash | None = None

    @model_validator(mode="after")
    def _members_are_distinct(self) -> "Manifest":
        for field in ("site", "root"):
            seen: dict[str, str] = {}
            for member in self.members:
                value = getattr(member, field)
                if value in seen:
                    shown = fingerprint(value) if field == "root" else value
                    raise ValueError(f"members {seen[value]} and {member.site} have the same {field} ({shown})")
                seen[value] = member.site
        if self.protection.min_sites > len(self.members):
            raise ValueError(f"min_sites {self.protection.min_sites} is above the {len(self.members)} members")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> "Manifest":
        metrics.segments(self.metrics, self.protection.row_cap)
        known = {column.name for column in self.contract.columns}
        for name, conditions in self.cohorts.items():
            for condition in conditions:
                if condition.column not in known:
                    raise ValueError(f"cohort {name} asks for {condition.column}, which is not in the contract")
        missing = {"rounds", "strategy", "seed", "cohort"} - set(self.parameters)
        if missing:
            raise ValueError(f"parameters lack {', '.join(sorted(missing))}")
        return self

    def root_of(self, site: str) -> str | None:
        """The root key (hex) of `site`, None if it is no member."""
        return next((member.root for member in self.members if member.site == site), None)

    def layout(self, chosen: Parameters) -> Layout:
        return layout.of_model(self.model, self.contract, chosen)

    def weight_bound(self) -> int:
        return self.protection.row_cap if self.protection.weighting == "rows" else 1

    def segments(self, kind: str, chosen: Parameters) -> tuple[Segment, ...]:
        """The one vector of a round of `kind` (train, evaluate): what a site sends and how it is bounded."""
        scores = metrics.segments(self.metrics, self.protection.row_cap)
        if kind == "evaluate":
            return scores
        width = layout.size(self.layout(chosen))
        update = Segment(name="update", size=width, bound=self.protection.clip, clip="l2")
        control = Segment(name="control", size=width, bound=self.protection.control_clip, clip="l2")
        return (
            update,
            *((control,) if chosen["strategy"] in CONTROLLED else ()),
            Segment(name="weight", size=1, bound=str(self.weight_bound()), whole=True),
            Segment(name="clipped", size=1, bound="1", whole=True),
            *scores,
        )

    def upload_bytes(self, kind: str, chosen: Parameters) -> int:
        """Exactly what one masked update weighs: four bytes a word."""
        return 4 * sum(segment.size for segment in self.segments(kind, chosen))


def default_parameters(cohorts: Cohorts, rounds: int = 1_000) -> Schema:
    """What a run of a tabular template may vary unless the project's author narrows it."""
    return {
        "rounds": parameters.integer(1, rounds, 15),
        "strategy": parameters.Enumeration(values=STRATEGIES, default="fedavg"),
        "seed": parameters.integer(0, 2**31 - 1, 42),
        "cohort": parameters.Enumeration(values=tuple(sorted(cohorts)), default="all"),
        "local_steps": parameters.integer(1, 100_000, 100),
        "batch_size": parameters.integer(1, 65_536, 4),
        "learning_rate": parameters.real("0.0000001", "10", "0.001"),
        "server_learning_rate": parameters.real("0.0000001", "10", "1"),
        "beta1": parameters.real("0", "0.9999", "0.9"),
        "beta2": parameters.real("0", "0.9999", "0.999"),
        "tau": parameters.real("0.000000000001", "1", "0.00000001"),
        "mu": parameters.real("0", "10", "0.01"),
        "architecture": parameters.Enumeration(values=("linear", "mlp"), default="linear"),
        "hidden": parameters.integer(1, 65_536, 16),
    }


def decimal(text: str) -> float:
    """A canonical decimal as float64."""
    return float(Decimal(text))
