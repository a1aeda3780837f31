"""What the store returns: frozen rows with domain types inside. Times are seconds since 1970 unless said."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koinon.domain import canonical
from koinon.domain.grant import Grant, Revocation
from koinon.domain.keys import Certificate
from koinon.domain.manifest import Manifest
from koinon.domain.parameters import Parameters
from koinon.domain.run import Kind, Phase, RoundState, RunState
from koinon.domain.wire import ArtifactRef, Opening, Roster, SiteStatus, Survivors


@dataclass(frozen=True, slots=True)
class User:
    """A researcher. The store holds only the SHA-256 of the bearer token, and hands out not even that."""

    name: str
    created: float


@dataclass(frozen=True, slots=True)
class SiteRow:
    """An enrolled site. `clock_offset`: the site's clock less the hub's, in seconds, at `last_seen`."""

    name: str
    root: str
    certificate: Certificate
    enrolled: float
    status: SiteStatus | None = None
    last_seen: float | None = None
    clock_offset: float | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """`rounds` (init rounds not counted, void ones counted) and `releases` were spent over the project's
    life, by deleted runs too."""

    hash: str
    manifest: Manifest
    owner: str
    created: float
    rounds: int
    releases: int


@dataclass(frozen=True, slots=True)
class GrantRow:
    """The newest grant and the newest revocation of one site for one manifest."""

    manifest: str
    site: str
    grant: Grant | None
    revocation: Revocation | None

    @property
    def revoked(self) -> bool:
        """A grant that starts at or before the revocation's time is over."""
        ended = self.revocation
        return ended is not None and (self.grant is None or self.grant.not_before <= ended.time)

    def in_force(self, now: float) -> bool:
        grant = self.grant
        return grant is not None and not self.revoked and grant.not_before <= now < grant.expires

    def ended(self, now: float) -> bool:
        """Revoked or expired, and not granted again."""
        return self.grant is not None and (self.revoked or now >= self.grant.expires)


@dataclass(frozen=True, slots=True)
class Run:
    """`model` is what `model_round` committed: version 0 by the init round, one more by each train round.
    `version` is -1 before the first commit."""

    id: str
    project: str
    owner: str
    parameters: Parameters
    state: RunState
    created: float
    started: float | None = None
    finished: float | None = None
    reason: str = ""
    model: ArtifactRef | None = None
    model_round: int | None = None
    optimiser: ArtifactRef | None = None
    version: int = -1
    result: ArtifactRef | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """`version` is that of the model the round started from (-1 in the init round); the metrics it opens
    are that version's. `first` are the sites of the first roster; `released`: a share came in, so the round
    can only commit or be void. `seconds` per part of the round and `bytes` uploaded, set by its commit."""

    run: str
    number: int
    kind: Kind
    state: RoundState
    opened: float
    closed: float | None
    first: tuple[str, ...] | None
    released: bool
    version: int
    seconds: dict[str, float]
    bytes: int
    survivors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attempt:
    """`phases` maps each phase entered to the time it began."""

    run: str
    round: int
    number: int
    phase: Phase
    deadline: float
    opening: Opening
    roster: Roster | None
    survivors: Survivors | None
    phases: dict[Phase, float]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fold:
    """The newest durable accumulator of an attempt: file name, its hash, and whose upload (by root) is in it."""

    name: str
    digest: str
    roots: dict[str, str]


@dataclass(frozen=True, slots=True)
class Sealing:
    """What makes a repeated sealing write identical bytes: the signed header, the content key encrypted."""

    header: bytes
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Artifact:
    """A committed artifact. `kind` is model, optimiser or result."""

    run: str
    round: int
    kind: str
    ref: ArtifactRef


@dataclass(frozen=True, slots=True)
class Event:
    """One link of a run's chain. `time` in whole milliseconds since 1970. `data` is in canonical form:
    numbers that are not integers are decimal strings. The store writes these kinds, and adds what the caller gives:

    run.submitted     project, owner, parameters
    run.deleted       (nothing)
    run.running, run.completed, run.failed, run.cancelled         reason
    round.opened, attempt.opened      round, attempt, kind, invited, deadline, opening (hash)
    attempt.advanced  round, attempt, phase, deadline [, sites, roster (hash)] [, sites, survivors (hash)]
    attempt.failed    round, attempt, reason
    round.void        round, reason
    round.committed   round, kind, version, scored, model, optimiser, result (artifacts), survivors, metrics,
                      seconds, bytes
    """

    run: str
    seq: int
    time: int
    kind: str
    data: dict[str, Any]
    previous: str
    hash: str


def event_hash(run: str, seq: int, time: int, kind: str, data: Mapping[str, Any], previous: str) -> str:
    """Names an event and all before it. `previous` of the first event (seq 1) is the manifest's hash."""
    body = {"run": run, "seq": seq, "time": time, "kind": kind, "data": data, "previous": previous}
    return canonical.digest(body)
