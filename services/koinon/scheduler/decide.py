"""Decides what happens to a run next: `decide(view, now) -> actions`, without clock, I/O or memory.

The same view and time give the same actions. Nothing is decided twice: an action changes the stored state,
and the next view shows it. Every wait has an end, `wake_at`, after which `decide` says how it goes on.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from koinon.domain.run import Kind, Phase, RunState
from koinon.scheduler.view import AttemptView, RoundView, RunView, quorum

MAX_ATTEMPTS = 3
MAX_VOIDS = 3
BATCH = 16  # uploads folded at once, at most


@dataclass(frozen=True)
class Start:
    """Enough sites have granted and are connected: the run leaves the queue."""


@dataclass(frozen=True)
class Open:
    """A new round with its first attempt."""

    round: int
    kind: Kind
    phase: Phase
    invited: tuple[str, ...]
    deadline: float


@dataclass(frozen=True)
class Advance:
    """The attempt goes from one phase to the next; `sites` go on, `missing` do not."""

    round: int
    attempt: int
    source: Phase
    target: Phase
    deadline: float
    sites: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """Verified uploads join the sum."""

    round: int
    attempt: int
    sites: tuple[str, ...]


@dataclass(frozen=True)
class AskWeights:
    """Round 0: `site` is asked for the first weights on which enough sites agree."""

    round: int
    attempt: int
    site: str
    sha256: str
    until: float


@dataclass(frozen=True)
class Commit:
    """The sum can be opened (round 0: the weights are here): make the next model durable."""

    round: int
    attempt: int


@dataclass(frozen=True)
class Retry:
    """The attempt failed before anything was opened: a new one with new keys, nothing trained twice."""

    round: int
    attempt: int  # the new one
    phase: Phase
    invited: tuple[str, ...]
    deadline: float
    reason: str


@dataclass(frozen=True)
class Void:
    """Shares were released but too few to open: the model stays and a new round number starts."""

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class Fail:
    """The run ends without its result."""

    reason: str


Action = Start | Open | Advance | Fold | AskWeights | Commit | Retry | Void | Fail

_NEXT = {
    Phase.KEYS: Phase.SHARES,
    Phase.SHARES: Phase.MASKED,
    Phase.MASKED: Phase.SURVIVORS,
    Phase.SURVIVORS: Phase.UNMASK,
}


def decide(view: RunView, now: float) -> list[Action]:
    """What to do now; empty while the run waits (see `wake_at`)."""
    if view.state not in (RunState.QUEUED, RunState.RUNNING):
        return []
    if view.round is None:
        return _between_rounds(view, now)
    if view.round.attempt.phase is Phase.FAILED:  # the hub stopped between the end of one attempt and the next
        return _again(view, view.round, now, f"{_of(view.round)} failed.")
    if view.round.kind is Kind.INIT:
        return _init(view, view.round, now)
    if view.round.attempt.phase is Phase.UNMASK:
        return _unmask(view, view.round, now)
    return _phase(view, view.round, now)


def wake_at(view: RunView, now: float) -> float:
    """The time at which the wait that `decide` reported at `now` ends by itself."""
    if view.round is not None:
        attempt = view.round.attempt
        asked = attempt.asked_until if attempt.asked else attempt.deadline
        return min(attempt.deadline, asked, view.silence_at(attempt, now))
    return view.gather_until if len(view.live) >= view.crowd and now < view.gather_until else view.give_up


def uploader(view: RunView, current: AttemptView) -> tuple[str, str] | None:
    """Round 0: the site to ask next for the agreed weights, and their hash. None while too few agree."""
    for digest in sorted(set(current.votes.values())):
        agreeing = sorted(site for site, vote in current.votes.items() if vote == digest)
        if len(agreeing) < max(quorum(len(current.expected)), view.crowd):
            continue
        willing = [site for site in agreeing if site not in current.troubles]
        connected = [site for site in willing if site in view.live] or willing
        later = [site for site in connected if site > current.asked]
        return ((later or connected)[0], digest) if connected else None
    return None


def _between_rounds(view: RunView, now: float) -> list[Action]:
    if view.voids >= MAX_VOIDS:
        return [Fail(f"{view.voids} rounds in a row were void: sites vanished while their sum was being opened.")]
    if view.rounds_left <= 0:
        return [Fail("The project's limit of rounds is used up. A new manifest can set a higher one.")]
    ended = [site.name for site in view.sites if site.ended]
    if view.state is RunState.RUNNING and len(view.sites) - len(ended) < view.crowd:
        return [Fail(f"Too few sites still grant the project; {view.crowd} are needed. Ended: {_names(ended)}.")]
    everybody = view.live == view.granted and len(view.granted) == len(view.sites)
    enough = len(view.live) >= view.crowd
    if not enough or not (everybody or now >= view.gather_until):
        if now >= view.give_up:
            return [Fail(f"Only {len(view.live)} of {len(view.sites)} sites have granted the project and are connected"
                         f"; {view.crowd} are needed. {_who(view)}")]  # fmt: skip
        return []
    if view.state is RunState.QUEUED:
        return [Start()]
    kind = Kind.INIT if not view.initialised else Kind.TRAIN if view.trained < view.rounds else Kind.EVALUATE
    phase = Phase.INIT if kind is Kind.INIT else Phase.KEYS
    return [Open(view.next_number, kind, phase, tuple(sorted(view.live)), now + view.train_seconds)]


def _init(view: RunView, current: RoundView, now: float) -> list[Action]:
    attempt = current.attempt
    if attempt.delivered:
        return [Commit(current.number, attempt.number)]
    chosen = uploader(view, attempt)
    over = now >= attempt.deadline
    if chosen and not over:
        if attempt.asked and attempt.asked not in attempt.troubles and now < attempt.asked_until:
            return []
        until = min(now + view.phase_seconds, attempt.deadline)
        return [AskWeights(current.number, attempt.number, chosen[0], chosen[1], until)]
    if len(attempt.possible) < max(view.crowd, quorum(len(attempt.expected))):
        return [Fail(f"Too few sites can build the first weights. {_missing(attempt)}")]
    if not attempt.awaited and not chosen:
        # NB: the hashes are not shown: research code could choose them to say something.
        groups = [sorted(s for s, vote in attempt.votes.items() if vote == one) for one in set(attempt.votes.values())]
        shown = " against ".join(_names(group) for group in sorted(groups))
        return [Fail(f"The sites' first weights differ, so none are used: {shown}. Do all sites run the same image?")]
    return _again(view, current, now, f"The first weights did not arrive in time. {_missing(attempt)}") if over else []


def _phase(view: RunView, current: RoundView, now: float) -> list[Action]:
    """KEYS, SHARES, MASKED and SURVIVORS end when enough sites answered and the others are silent, or at the deadline.

    NB: silence alone never fails an attempt: a site whose line is down for minutes may be needed.
    """
    attempt = current.attempt
    over = now >= attempt.deadline
    waited = view.waits_for(attempt, now)
    if attempt.spooled and (not waited or over or len(attempt.spooled) >= BATCH):
        return [Fold(current.number, attempt.number, tuple(sorted(attempt.spooled)[:BATCH]))]
    needed = view.needed(attempt)
    voted = attempt.phase is Phase.SURVIVORS and len(attempt.answered) >= needed
    if voted or (len(attempt.answered) >= needed and (over or not waited)):
        missing = tuple(sorted(attempt.expected - attempt.answered))
        target = _NEXT[attempt.phase]
        sites = tuple(sorted(attempt.answered))
        deadline = now + view.phase_seconds
        return [Advance(current.number, attempt.number, attempt.phase, target, deadline, sites, missing)]
    least = needed if attempt.n else view.crowd
    if len(attempt.possible) < least:
        if attempt.phase is Phase.KEYS and attempt.troubles:
            return [Fail(f"{_of(current)}: too few sites can take part. {_missing(attempt)}")]
        return _again(view, current, now, f"{_of(current)}: too few sites are left in phase {attempt.phase}. "
                      f"{_missing(attempt)}")  # fmt: skip
    if over:
        return _again(view, current, now, f"{_of(current)}: {len(attempt.answered)} sites answered phase "
                      f"{attempt.phase} in time, {max(least, needed)} are needed. {_missing(attempt)}")  # fmt: skip
    return []


def _unmask(view: RunView, current: RoundView, now: float) -> list[Action]:
    attempt = current.attempt
    if attempt.openable:
        return [Commit(current.number, attempt.number)]
    if now < attempt.deadline and len(attempt.possible) >= view.needed(attempt):
        return []
    reason = f"{_of(current)}: too few sites released their shares. {_missing(attempt)}"
    return [Void(current.number, attempt.number, reason)] if current.released else _again(view, current, now, reason)


def _again(view: RunView, current: RoundView, now: float, reason: str) -> list[Action]:
    attempt = current.attempt
    if attempt.number >= MAX_ATTEMPTS:
        return [Fail(f"{reason} This was attempt {attempt.number} of {MAX_ATTEMPTS}.")]
    possible = current.first & view.granted if current.first else view.granted
    least = max(view.crowd, quorum(len(current.first))) if current.first else view.crowd
    if len(possible) < least:
        return [Fail(f"{reason} Only {len(possible)} sites still grant the project; {least} are needed.")]
    connected = possible & view.live
    invited = connected if len(connected) >= least else possible
    phase = Phase.INIT if current.kind is Kind.INIT else Phase.KEYS
    seconds = view.phase_seconds if current.first else view.train_seconds
    return [Retry(current.number, attempt.number + 1, phase, tuple(sorted(invited)), now + seconds, reason)]


def _of(current: RoundView) -> str:
    return f"Round {current.number}, attempt {current.attempt.number}"


def _names(sites: Collection[str]) -> str:
    shown = sorted(sites)
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _missing(attempt: AttemptView) -> str:
    """Who did not answer, and what the others reported."""
    told = [f"{site} reported {attempt.troubles[site]}." for site in sorted(attempt.troubles)[:8]]
    if attempt.awaited:
        when = datetime.fromtimestamp(attempt.deadline, UTC).strftime("%H:%M:%S UTC")
        told.append(f"No answer yet from {_names(attempt.awaited)}, awaited until {when}.")
    return " ".join(told)


def _who(view: RunView) -> str:
    without = [site.name for site in view.sites if not site.granted]
    away = [site.name for site in view.sites if site.granted and not site.live]
    told = [f"{_names(without)} did not grant it."] if without else []
    return " ".join([*told, f"{_names(away)} are not connected."] if away else told)
