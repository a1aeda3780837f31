"""Where a round's time went, by its parts and by site."""

from koinon.domain.run import Phase
from koinon.scheduler.progress import Progress
from koinon.store.records import Attempt, Round


def seconds(progress: Progress, attempt: Attempt, round: Round, now: float) -> dict[str, float]:
    """Seconds of the round whose attempt is being committed at `now`.

    `train` from its opening to the last keys (local steps happen then, and earlier attempts if any), `keys` until the
    roster was fixed, `shares`, `masked`, `survivors`, `unmask` until the sum could be opened, `commit` until now, and
    `round` in all. Per site `SITE.keys`, `SITE.shares`, …: how long after the phase began its answer came; and what the
    site told of its own steps, such as `SITE.train`. After a restart of the hub the sites' earlier figures are missing.
    """
    result: dict[str, float] = {}
    began = attempt.phases
    if Phase.KEYS in began:
        closed = began.get(Phase.SHARES, now)
        offsets = [offset for (_, phase), offset in progress.arrivals.items() if phase is Phase.KEYS]
        last = began[Phase.KEYS] + max(offsets) if offsets else closed
        result["train"] = last - round.opened
        result["keys"] = closed - last
        for phase, following in ((Phase.SHARES, Phase.MASKED), (Phase.MASKED, Phase.SURVIVORS),
                                 (Phase.SURVIVORS, Phase.UNMASK)):  # fmt: skip
            if phase in began and following in began:
                result[phase.value] = began[following] - began[phase]
        opened = progress.openable_at or began.get(Phase.UNMASK, now)
        result["unmask"] = opened - began.get(Phase.UNMASK, opened)
        result["commit"] = now - opened
    else:
        result["train"] = now - round.opened
    result["round"] = now - round.opened
    for (site, phase), offset in progress.arrivals.items():
        result[f"{site}.{phase}"] = offset
    for site, took in progress.took.items():
        result |= {f"{site}.{name}": value for name, value in took.items()}
    return {name: round_to_micro(max(value, 0.0)) for name, value in result.items()}


def round_to_micro(value: float) -> float:
    """Microseconds are enough, and keep the chain's decimal strings short."""
    return float(f"{value:.6f}")
