"""A project with three sites, and whole rounds of a run driven through the store as the hub's loop would."""

import itertools

from koinon.domain import wire
from koinon.domain.errors import Conflict
from koinon.domain.keys import Certificate, SigningKey
from koinon.domain.run import Kind, Phase, RoundState, RunState
from koinon.store.records import Attempt, Project, Run
from koinon.store.store import Store
from tests.unit.domain import manifests

SITES = ("lille", "lyon", "nantes")
METRICS = {"accuracy": {"mean": 0.1 + 0.2, "pooled": 1 / 3}}
LATER = 4e9


def hash_of(number: int) -> str:
    return f"{number:064x}"


def ref(number: int) -> wire.ArtifactRef:
    return wire.ArtifactRef(name=hash_of(number), bytes=100 + number, plaintext=hash_of(number + 1_000_000))


def certificate(site: str, epoch: int = 1, root: SigningKey | None = None) -> Certificate:
    unsigned = Certificate(
        site=site, epoch=epoch, signing="cd" * 32, recipient=manifests.AGE, not_before=0, not_after=int(LATER)
    )
    return unsigned.signed(root or manifests.ROOTS[site])


def project(store: Store, **changes: object) -> Project:
    return store.add_project(manifests.build(**changes), "ada")


def running(store: Store, run: str = "run001", **changes: object) -> Run:
    store.add_run(run, project(store, **changes).hash, "ada", {"rounds": 15, "learning_rate": "0.001"})
    return store.set_run_state(run, RunState.RUNNING)


def opening(store: Store, run: str, number: int, kind: Kind = Kind.TRAIN, attempt: int = 1) -> wire.Opening:
    stored = store.run(run)
    return wire.Opening(
        manifest=stored.project,
        run=run,
        round=number,
        attempt=attempt,
        kind=kind,
        parameters=stored.parameters,
        model=stored.model.plaintext if stored.model else None,
        base=stored.model_round,
        invited=SITES,
        audit=store.head(run),
    )


def roster(opened: wire.Opening, sites: tuple[str, ...] = SITES, first: tuple[str, ...] = SITES) -> wire.Roster:
    keys = {"mask_key": "01" * 32, "share_key": "02" * 32, "seed_commitment": "03" * 32}
    participants = tuple(
        wire.Participant(
            certificate=certificate(site),
            keys=wire.Keys(opening=opened.digest(), site=site, signature="00" * 64, **keys),
        )
        for site in sites
    )
    return wire.Roster(participants=participants, first=first, c=1, t=3, k=2)


def survivors(opened: wire.Opening) -> wire.Survivors:
    context = wire.context(opened, roster(opened))
    roots = {site: hash_of(7) for site in SITES}
    signatures = dict.fromkeys(SITES, "00" * 64)
    return wire.Survivors(context=context, sharers=SITES, size=4, roots=roots, signatures=signatures)


def bring_to(store: Store, attempt: Attempt, phase: Phase) -> Attempt:
    """Through the phases to `phase`, each with a message of every site."""
    opened = attempt.opening
    order = [Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASK]
    for current, following in itertools.pairwise(order):
        if attempt.phase is phase:
            break
        if attempt.phase is not current:
            continue
        for site in SITES:
            store.put_message(attempt.run, attempt.round, attempt.number, current, site, f"{site} {current}".encode())
        extra = {"roster": roster(opened)} if following is Phase.SHARES else {}
        more = {"survivors": survivors(opened)} if following is Phase.SURVIVORS else {}
        attempt = store.advance(attempt.run, attempt.round, attempt.number, following, LATER, **extra, **more)  # type: ignore[arg-type]
    return attempt


def commit(store: Store, run: str, number: int, kind: Kind) -> None:
    """A function of the round alone, so that a repeat is the same commit."""
    version = number if kind is not Kind.EVALUATE else store.run(run).version
    store.commit_round(
        run,
        number,
        model=None if kind is Kind.EVALUATE else ref(number),
        optimiser=ref(500 + number) if kind is Kind.TRAIN else None,
        result=ref(9_999) if kind is Kind.EVALUATE else None,
        version=version,
        metrics={} if kind is Kind.INIT else METRICS,
        seconds={"train": 0.25},
        bytes=1_234,
        survivors=() if kind is Kind.INIT else SITES,
    )


def whole_round(store: Store, run: str, number: int, kind: Kind | None = None) -> None:
    """Opens the round, or goes on with it where a killed process left it, and commits it."""
    kind = kind or (Kind.INIT if number == 0 else Kind.TRAIN)
    last = store.rounds(run, last=1)
    if last and last[0].number == number and last[0].state is RoundState.OPEN:
        attempt = store.attempts(run, number)[-1]
    else:
        attempt = store.open_round(opening(store, run, number, kind), LATER)
    if kind is not Kind.INIT:
        bring_to(store, attempt, Phase.UNMASK)
        store.mark_released(run, number)
    commit(store, run, number, kind)


def refuses(call: object, *arguments: object, **named: object) -> None:
    """Fails unless the call raises Conflict."""
    try:
        call(*arguments, **named)  # type: ignore[operator]
    except Conflict:
        return
    raise AssertionError(f"{call} was not refused")
