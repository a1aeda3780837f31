"""A run as the scheduler holds it in memory: a cache of what the store says, and what may not be stored.

Everything but released shares can be rebuilt: `load` does, after a start, after every step and after any doubt.
All access happens under `lock`.
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from koinon.aggregation.spool import Spool, Upload
from koinon.artifacts import sealing
from koinon.domain import layout, tensors
from koinon.domain.errors import Invalid, Untrusted
from koinon.domain.run import Kind, Phase, RoundState, is_final
from koinon.domain.wire import Ballot, InitVote, Masked, Participant, Release, Shares, Trouble, Vote
from koinon.protection.hub import HubAttempt
from koinon.protection.masking import Mask
from koinon.store.records import Attempt, Fold, GrantRow, Project, Round, Run
from koinon.store.store import Store


@dataclass(frozen=True)
class Failure:
    """A step that failed and is tried again."""

    text: str
    since: float
    until: float


@dataclass(frozen=True)
class Spooled:
    """A verified upload: its BLAKE3 root and its parts."""

    root: str
    paths: tuple[Path, ...]


@dataclass
class Progress:
    """One active run. `place` is the key of what belongs to the present attempt only."""

    run: Run
    project: Project
    lock: threading.RLock = field(default_factory=threading.RLock)
    stale: bool = True  # the store must be read again
    grants: dict[str, GrantRow] = field(default_factory=dict)
    idle_since: float = 0.0  # when the last round ended
    voids: int = 0
    counted: dict[str, int] = field(default_factory=dict)  # site -> newest committed round with its update
    next_number: int = 0
    round: Round | None = None
    attempt: Attempt | None = None
    hub: HubAttempt | None = None
    fold: Fold | None = None
    answered: set[str] = field(default_factory=set)
    votes: dict[str, str] = field(default_factory=dict)
    spooled: dict[str, Spooled] = field(default_factory=dict)
    failure: Failure | None = None
    published: tuple[object, ...] = ()
    # What a restart forgets, per attempt; sites are then asked again.
    place: tuple[int, int] = (-1, -1)
    troubles: dict[str, tuple[Phase, str]] = field(default_factory=dict)
    arrivals: dict[tuple[str, Phase], float] = field(default_factory=dict)
    took: dict[str, dict[str, float]] = field(default_factory=dict)
    releases: dict[str, Release] = field(default_factory=dict)
    masks: list[Mask] | None = None
    openable_at: float = 0.0
    asked: str = ""
    asked_until: float = 0.0
    ballots: tuple[Ballot, ...] = ()  # round 0: what shows the asked site that the others built the same weights
    weights: Path | None = None  # round 0: the sealed first weights, whole

    @property
    def over(self) -> bool:
        return is_final(self.run.state)

    @property
    def expected(self) -> frozenset[str]:
        """Who may answer the present phase."""
        attempt = self.attempt
        if attempt is None:
            return frozenset()
        if attempt.phase in (Phase.INIT, Phase.KEYS):
            return frozenset(attempt.opening.invited)
        assert self.hub is not None
        if attempt.phase is Phase.SHARES:
            return frozenset(self.hub.roster().sites)
        return frozenset(self.hub.sharers())

    @property
    def silent(self) -> dict[str, str]:
        """Those who reported trouble in this phase, with what they said."""
        phase = self.attempt.phase if self.attempt else None
        return {s: text for s, (at, text) in self.troubles.items() if at is phase and s not in self.answered}

    @property
    def awaited(self) -> frozenset[str]:
        """Who is asked now."""
        if self.attempt is None or self.attempt.phase is Phase.FAILED:
            return frozenset()
        if self.attempt.phase is Phase.INIT and self.asked:
            return self.expected - self.answered - set(self.silent) | ({self.asked} if self.weights is None else set())
        return self.expected - self.answered - set(self.spooled) - set(self.silent)

    def first(self) -> tuple[str, ...] | None:
        """The sites on which the thresholds of this attempt rest; None in a first attempt."""
        assert self.round is not None
        assert self.attempt is not None
        if self.attempt.number == 1:
            return None
        return self.round.first or tuple(sorted(self.attempt.opening.invited))

    def upload(self, site: str) -> Upload:
        """The upload that `site` may make now. Raises Invalid if there is none in this round."""
        assert self.attempt is not None
        opening = self.attempt.opening
        size, exact = self.upload_bytes(), opening.kind is not Kind.INIT
        return Upload(opening.run, opening.round, opening.attempt, site, size, exact)

    def upload_bytes(self) -> int:
        """Exactly what a masked update weighs; in round 0 a bound of what the sealed first weights do."""
        assert self.attempt is not None
        opening, manifest = self.attempt.opening, self.project.manifest
        if opening.kind is not Kind.INIT:
            return manifest.upload_bytes(opening.kind, opening.parameters)
        shapes = manifest.layout(opening.parameters)
        plain = len(tensors.header(tensors.named(shapes, "model"))) + 4 * layout.size(shapes)
        return plain + 2**16 + sealing.TAG * (plain // sealing.CHUNK + 2)

    def enter(self, attempt: Attempt | None) -> None:
        """The attempt is in a new phase, which nobody has answered yet; None between rounds."""
        place = (attempt.round, attempt.number) if attempt is not None else (-1, -1)
        if place != self.place:
            self.troubles, self.arrivals, self.took = {}, {}, {}
            self.hub, self.fold, self.releases, self.masks, self.openable_at = None, None, {}, None, 0.0
            self.asked, self.asked_until, self.ballots, self.weights = "", 0.0, (), None
        self.place, self.attempt = place, attempt
        self.answered, self.votes, self.spooled = set(), {}, {}
        if attempt is not None and self.hub is None and attempt.phase is Phase.KEYS:
            self.hub = self.new_hub()

    def new_hub(self) -> HubAttempt:
        """The protocol's state of the attempt as the store has it, without its messages."""
        assert self.attempt is not None
        attempt = self.attempt
        roots = {member.site: member.root for member in self.project.manifest.members}
        return HubAttempt(
            attempt.opening,
            roots,
            self.upload_bytes(),
            first=self.first(),
            roster=attempt.roster,
            survivors=attempt.survivors,
        )


def load(progress: Progress, store: Store, spool: Spool) -> None:
    """Brings `progress` to what the store says. Raises Unavailable; `progress` stays stale then."""
    progress.run = store.run(progress.run.id)
    progress.project = store.project(progress.run.project)
    progress.grants = store.grants(progress.run.project)
    rounds = store.rounds(progress.run.id, last=4 if progress.counted else None)
    for row in rounds:
        if row.state is RoundState.COMMITTED and row.kind is Kind.TRAIN:
            progress.counted |= dict.fromkeys(row.survivors, row.number)
    last = rounds[-1] if rounds else None
    progress.round = last if last is not None and last.state is RoundState.OPEN else None
    progress.next_number = last.number + 1 if last is not None else 0
    progress.idle_since = max(progress.run.started or progress.run.created, (last.closed or 0.0) if last else 0.0)
    progress.voids = 0
    for earlier in reversed(rounds):
        if earlier.state is not RoundState.VOID:
            break
        progress.voids += 1
    attempt = store.attempts(progress.run.id, progress.round.number)[-1] if progress.round else None
    verified = progress.spooled
    progress.enter(attempt)
    if attempt is not None and attempt.phase is not Phase.FAILED:
        _load_attempt(progress, attempt, store, spool, verified)
    progress.stale = False


def _load_attempt(
    progress: Progress, attempt: Attempt, store: Store, spool: Spool, verified: dict[str, Spooled]
) -> None:
    key = (attempt.run, attempt.round, attempt.number)
    if attempt.phase in (Phase.INIT, Phase.KEYS):
        for site, trouble in store.troubles(*key).items():
            progress.troubles.setdefault(site, (attempt.phase, describe(trouble)))
    if attempt.phase is Phase.INIT:
        for site, body in store.messages(*key, Phase.INIT).items():
            progress.votes[site] = InitVote.parse(body).sha256
        progress.answered = set(progress.votes)
        return
    progress.hub = hub = progress.new_hub()
    _replay(progress, hub, attempt, store)
    if attempt.phase in (Phase.KEYS, Phase.SHARES):
        progress.answered = set(store.messages(*key, attempt.phase))
    elif attempt.phase is Phase.MASKED:
        _load_uploads(progress, hub, store, spool, verified)
    elif attempt.phase is Phase.SURVIVORS:
        progress.answered = {vote.site for vote in hub.votes()}
    elif attempt.phase is Phase.UNMASK:
        progress.answered = set(progress.releases)
    if attempt.phase in (Phase.SURVIVORS, Phase.UNMASK):
        progress.fold = store.fold(*key)


def _replay(progress: Progress, hub: HubAttempt, attempt: Attempt, store: Store) -> None:
    """Stored messages, which were checked when they came; of releases those of this process."""
    key = (attempt.run, attempt.round, attempt.number)
    if attempt.roster is None:
        for site, body in store.messages(*key, Phase.KEYS).items():
            participant = Participant.parse(body, where=site)
            # Its certificate was valid at the time, and may have ended since.
            hub.add_keys(participant.keys, participant.certificate, participant.certificate.not_before)
    elif attempt.survivors is None:  # survivors name the sharers, whose shares have then gone round
        for body in store.messages(*key, Phase.SHARES).values():
            hub.add_shares(Shares.parse(body))
        if attempt.phase is not Phase.SHARES:
            hub.sharers()
    else:
        for body in store.messages(*key, Phase.SURVIVORS).values():
            hub.add_vote(Vote.parse(body))
        for release in progress.releases.values():
            hub.add_release(release)


def _load_uploads(
    progress: Progress, hub: HubAttempt, store: Store, spool: Spool, verified: dict[str, Spooled]
) -> None:
    """An upload counts if it is in the durable sum, or still whole in the spool; else its site sends it again."""
    assert progress.attempt is not None
    attempt = progress.attempt
    key = (attempt.run, attempt.round, attempt.number)
    progress.fold = store.fold(*key)
    folded = progress.fold.roots if progress.fold else {}
    for site, body in store.messages(*key, Phase.MASKED).items():
        masked = Masked.parse(body)
        if site in folded:
            progress.answered.add(site)
            spool.remove(progress.upload(site))  # the hub may have stopped before it did
        elif site in verified:
            progress.spooled[site] = verified[site]
        else:
            try:
                paths = spool.verify(progress.upload(site), masked.root)
            except (Invalid, Untrusted):
                continue
            progress.spooled[site] = Spooled(masked.root, paths)
        hub.add_masked(masked)


def is_refusal(trouble: Trouble) -> bool:
    """Does the site refuse, rather than fail?"""
    return trouble.error in ("Refusal", "Refused")


def describe(trouble: Trouble) -> str:
    """A trouble in words; its full text is in the hospital's log under the incident."""
    told = trouble.code.replace("_", " ")
    if is_refusal(trouble):
        told = f"that it refuses ({told})"
    elif trouble.error != "Error":
        told += f" ({trouble.error})"
    if trouble.shapes:
        told += f" with shapes {' and '.join('×'.join(map(str, shape)) for shape in trouble.shapes)}"
    if trouble.names:
        told += f" naming {', '.join(trouble.names)}"
    return f"{told}{f' at {trouble.place}' if trouble.place else ''}, incident {trouble.incident}"
