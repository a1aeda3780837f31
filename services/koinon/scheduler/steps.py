"""Applies what `decide` says, one action a step: the store first, then memory.

A step that fails may be repeated whole: every verb of the store is idempotent, files are named by their hash, and
after a failure memory is read again from the store.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from koinon.aggregation.commit import Committer, Sum
from koinon.aggregation.fold import Accumulator
from koinon.aggregation.spool import Spool
from koinon.domain.errors import Conflict, Invalid, Untrusted
from koinon.domain.keys import Certificate
from koinon.domain.run import Kind, Phase, RunState
from koinon.domain.wire import Ballot, InitVote, Opening
from koinon.scheduler.decide import (
    Action,
    Advance,
    AskWeights,
    Commit,
    Fail,
    Fold,
    Open,
    Retry,
    Start,
    Void,
)
from koinon.scheduler.intake import Intake
from koinon.scheduler.progress import Progress
from koinon.scheduler.timing import seconds
from koinon.store import records
from koinon.store.store import Store


class Observer(Protocol):
    """Who is told what happens (the gateway's metrics)."""

    def round_ended(self, kind: str, state: str, seconds: Mapping[str, float], size: int) -> None: ...

    def attempt_failed(self, phase: str) -> None: ...

    def run_ended(self, state: str) -> None: ...

    def site_troubled(self, code: str, refused: bool) -> None: ...

    def step_failed(self) -> None: ...


class Steps:
    """`folds` is the folder of the masked sums."""

    def __init__(
        self, store: Store, spool: Spool, committer: Committer, intake: Intake, folds: Path, observer: Observer,
        certificate_of: Callable[[str], Certificate], clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store, self._spool, self._committer, self._intake = store, spool, committer, intake
        self._folds, self._observer = folds, observer
        self._certificate_of, self._clock = certificate_of, clock

    def apply(self, progress: Progress, action: Action) -> None:
        """Raises Unavailable or OSError if it can be tried again; another KoinonError ends the run."""
        match action:
            case Open():
                self._open(progress, action)
            case Advance():
                self._advance(progress, action)
            case Fold():
                self._fold(progress, action)
            case AskWeights():
                self._ask(progress, action)
            case Commit():
                self._commit(progress, action)
            case Retry():
                self._retry(progress, action)
            case Void():
                self._void(progress, action)
            case Start():
                self._store.set_run_state(progress.run.id, RunState.RUNNING)
                progress.stale = True
            case Fail():
                self._store.set_run_state(progress.run.id, RunState.FAILED, action.reason)
                progress.stale = True

    def clean_run(self, run: str) -> None:
        """Removes what is left of a run that is over."""
        self._spool.remove_run(run)
        shutil.rmtree(self._folds / run, ignore_errors=True)
        self._committer.forget(run)

    def _open(self, progress: Progress, action: Open) -> None:
        opening = self._opening(progress, action.round, 1, action.kind, action.invited)
        attempt = self._store.open_round(opening, action.deadline)
        progress.round = self._store.round(opening.run, action.round)
        progress.next_number = action.round + 1
        spent = progress.project.rounds + (action.kind is not Kind.INIT)
        progress.project = replace(progress.project, rounds=spent)
        progress.enter(attempt)

    def _retry(self, progress: Progress, action: Retry) -> None:
        assert progress.attempt is not None
        run, kind, phase = progress.run.id, progress.attempt.opening.kind, progress.attempt.phase
        self._store.fail_attempt(run, action.round, action.attempt - 1, action.reason)
        self._clean_attempt(run, action.round, action.attempt - 1)
        opening = self._opening(progress, action.round, action.attempt, kind, action.invited)
        progress.enter(self._store.open_attempt(opening, action.deadline))
        self._observer.attempt_failed(phase)

    def _opening(self, progress: Progress, round: int, attempt: int, kind: Kind, invited: tuple[str, ...]) -> Opening:
        run = progress.run
        return Opening(
            manifest=run.project,
            run=run.id,
            round=round,
            attempt=attempt,
            kind=kind,
            parameters=run.parameters,
            model=run.model.plaintext if run.model else None,
            base=run.model_round,
            invited=invited,
            audit=self._store.head(run.id),
        )

    def _advance(self, progress: Progress, action: Advance) -> None:
        hub = progress.hub
        assert hub is not None
        roster = survivors = None
        if action.target is Phase.SHARES:
            roster = hub.roster()
            fixed = roster.sites
        elif action.target is Phase.MASKED:
            fixed = hub.sharers()
        elif action.target is Phase.SURVIVORS:
            survivors = hub.survivors()
            fixed = tuple(sorted(survivors.roots))
        else:
            fixed = action.sites
        if fixed != action.sites:
            raise Conflict("The protocol's state is not the one that was decided on.")
        attempt = self._store.advance(
            progress.run.id,
            action.round,
            action.attempt,
            action.target,
            action.deadline,
            roster=roster,
            survivors=survivors,
            data={"missing": action.missing},
        )
        if roster is not None and progress.round is not None:
            progress.round = replace(progress.round, first=roster.first)
        progress.enter(attempt)

    def _fold(self, progress: Progress, action: Fold) -> None:
        """Adds verified uploads to the durable sum, then tells the store, then drops them (fold.Accumulator)."""
        key = (progress.run.id, action.round, action.attempt)
        accumulator = self._accumulator(progress)
        before, batch = progress.fold, {site: progress.spooled[site] for site in action.sites}
        name = accumulator.fold(before.name if before else None, [upload.paths for upload in batch.values()])
        roots = dict(before.roots if before else {}) | {site: upload.root for site, upload in batch.items()}
        folded = records.Fold(name, name, roots)
        self._store.set_fold(*key, name, name, roots)
        accumulator.keep(name)
        for site in action.sites:
            self._spool.remove(progress.upload(site))
        with progress.lock:
            progress.fold = folded
            progress.answered |= set(batch)
            progress.spooled = {site: upload for site, upload in progress.spooled.items() if site not in batch}

    def _ask(self, progress: Progress, action: AskWeights) -> None:
        progress.ballots = self._ballots(progress, action)
        progress.asked, progress.asked_until, progress.weights = action.site, action.until, None
        try:
            self._intake.part_arrived(
                progress, self._certificate_of(action.site)
            )  # the hub may have stopped after the last part
        except (Invalid, Untrusted):
            return  # nothing, or nothing usable, is there yet

    def _ballots(self, progress: Progress, action: AskWeights) -> tuple[Ballot, ...]:
        """The votes for the agreed weights, with the certificates of the keys that signed them."""
        stored = self._store.messages(progress.run.id, action.round, action.attempt, Phase.INIT)
        votes = [InitVote.parse(body, where=site) for site, body in sorted(stored.items())]
        return tuple(
            Ballot(certificate=self._certificate_of(vote.site), vote=vote)
            for vote in votes
            if vote.sha256 == action.sha256
        )

    def _commit(self, progress: Progress, action: Commit) -> None:
        attempt, round, run = progress.attempt, progress.round, progress.run
        assert attempt is not None
        assert round is not None
        opening, manifest = attempt.opening, progress.project.manifest

        def told() -> dict[str, float]:
            return seconds(progress, attempt, round, self._clock())

        if opening.kind is Kind.INIT:
            assert progress.weights is not None
            sealed = progress.weights
            signer, sha256 = self._certificate_of(progress.asked).signing, progress.votes[progress.asked]
            try:
                done = self._committer.weights(manifest, opening, sealed, signer, sha256, told)
            except (Invalid, Untrusted) as error:
                # That site's fault: the next one that agreed is asked.
                progress.troubles[progress.asked] = (Phase.INIT, f"unusable weights: {error.what}")
                progress.weights = None
                self._spool.remove(progress.upload(progress.asked))
                return
            finally:
                if not isinstance(progress.weights, Path):
                    sealed.unlink(missing_ok=True)
            sealed.unlink(missing_ok=True)
        else:
            assert progress.fold is not None
            assert progress.masks is not None
            assert attempt.roster is not None
            survivors = tuple(sorted(progress.fold.roots))
            total = Sum(
                words=self._accumulator(progress).load(progress.fold.name),
                masks=progress.masks,
                n=attempt.roster.n,
                survivors=survivors,
                bytes=progress.upload_bytes() * len(survivors),
                seconds=told,
            )
            commit = self._committer.train if opening.kind is Kind.TRAIN else self._committer.evaluate
            done = commit(manifest, opening, run, total)
        with progress.lock:
            progress.run = self._store.run(run.id)
            progress.round, progress.idle_since, progress.voids = None, done.closed or self._clock(), 0
            progress.enter(None)
        self._clean_attempt(run.id, action.round, action.attempt)
        self._observer.round_ended(done.kind, done.state, done.seconds, done.bytes)

    def _void(self, progress: Progress, action: Void) -> None:
        done = self._store.void_round(progress.run.id, action.round, action.reason)
        self._clean_attempt(progress.run.id, action.round, action.attempt)
        self._observer.round_ended(done.kind, done.state, {}, 0)
        progress.stale = True

    def _clean_attempt(self, run: str, round: int, attempt: int) -> None:
        self._spool.remove_attempt(run, round, attempt)
        shutil.rmtree(self._folds / run / f"{round}.{attempt}", ignore_errors=True)

    def _accumulator(self, progress: Progress) -> Accumulator:
        assert progress.attempt is not None
        opening = progress.attempt.opening
        segments = progress.project.manifest.segments(opening.kind, opening.parameters)
        folder = self._folds / opening.run / f"{opening.round}.{opening.attempt}"
        return Accumulator(folder, sum(segment.size for segment in segments))
