"""What sites send: checked, made durable, and only then counted. Called from the gateway's threads.

A message for a phase that is over is "late", which is no error: the round went on without it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from koinon.aggregation import commit
from koinon.aggregation.spool import Spool, Upload
from koinon.domain.errors import Conflict, Invalid, KoinonError, Untrusted
from koinon.domain.keys import Certificate, Signed
from koinon.domain.run import Phase
from koinon.domain.wire import InitVote, Keys, Masked, Participant, Release, Shares, SiteReport, Vote
from koinon.protection.hub import HubAttempt
from koinon.scheduler.progress import Progress, Spooled, describe, is_refusal, load
from koinon.store.store import Store

ACCEPTED, REPEATED, LATE = "accepted", "repeated", "late"
_ORDER = [Phase.INIT, Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASK]
_MESSAGES: dict[Phase, type[Signed]] = {
    Phase.INIT: InitVote,
    Phase.KEYS: Keys,
    Phase.SHARES: Shares,
    Phase.MASKED: Masked,
    Phase.SURVIVORS: Vote,
    Phase.UNMASK: Release,
}


class Intake:
    """`work` is a folder for the sealed first weights of runs; `troubled` is told each new trouble of a site: its code,
    and whether the site refuses."""

    def __init__(self, store: Store, spool: Spool, work: Path, troubled: Callable[[str, bool], None]) -> None:
        self._store, self._spool, self._work, self._troubled = store, spool, work, troubled
        work.mkdir(parents=True, exist_ok=True)

    def receive(
        self, progress: Progress, certificate: Certificate, place: tuple[int, int], phase: Phase, body: bytes,
        took: Mapping[str, float], now: float,
    ) -> str:  # fmt: skip
        """One bundle of the site with `certificate` for `place`, (round, attempt). Accepted, repeated or late.

        Raises Invalid, Untrusted or Conflict for what the site may not send, Unavailable if it could not be stored:
        nothing is counted then.
        """
        site = certificate.site
        message = self._parse(site, phase, body)
        paths: tuple[Path, ...] = ()
        if isinstance(message, Masked):
            with self._current(progress):
                known = self._late(progress, place, phase) or site in progress.answered or site in progress.spooled
                upload = None if known else progress.upload(site)
            if upload is not None:
                paths = self._verified(progress, upload, message)
        with self._current(progress):
            if self._late(progress, place, phase):
                return LATE
            if site in progress.answered or site in progress.spooled:
                self._check_repeat(progress, message)
                return REPEATED
            if site not in progress.expected:
                raise Conflict(f"{site} has no part in phase {phase} of this attempt.")
            try:
                self._count(progress, certificate, phase, message, now)
            except (Conflict, Untrusted):
                if isinstance(message, Masked):
                    self._spool.remove(progress.upload(site))  # it was masked for something else
                raise
            if isinstance(message, Masked):
                progress.spooled[site] = Spooled(message.root, paths)
            else:
                progress.answered.add(site)
            assert progress.attempt is not None
            progress.arrivals[site, phase] = now - progress.attempt.phases.get(phase, now)
            progress.took.setdefault(site, {}).update(took)
            return ACCEPTED

    def _verified(self, progress: Progress, upload: Upload, message: Masked) -> tuple[Path, ...]:
        """The parts of an upload whose root is right. Without the lock: hashing gigabytes must not hold up others."""
        if message.size != upload.size:
            raise Invalid(f"The masked update has {upload.size} bytes, not {message.size}.", where="size")
        try:
            return self._spool.verify(upload, message.root)
        except KoinonError:
            with self._current(progress):  # the same message on another connection may have been faster
                if upload.site in progress.answered or upload.site in progress.spooled:
                    return ()
            raise

    def report(self, progress: Progress, site: str, place: tuple[int, int], body: bytes) -> str:
        """A site's trouble instead of a bundle."""
        report = SiteReport.parse(body, where="report")
        with self._current(progress):
            attempt = progress.attempt
            if attempt is None or place != progress.place or attempt.phase is Phase.FAILED:
                return LATE
            if report.site != site or report.opening != attempt.opening.digest():
                raise Conflict("The report is of another attempt, or of another site.")
            trouble = report.trouble
            new = self._store.put_trouble(attempt.run, attempt.round, attempt.number, site, trouble)
            progress.troubles[site] = (attempt.phase, describe(trouble))
            if new:
                told: dict[str, object] = {"round": attempt.round, "attempt": attempt.number, "phase": attempt.phase}
                told |= {"site": site, "trouble": trouble.model_dump(mode="json")}
                self._store.append_event(attempt.run, "site.trouble", told)
                self._troubled(trouble.code, is_refusal(trouble))
            return ACCEPTED if new else REPEATED

    def part_arrived(self, progress: Progress, certificate: Certificate) -> bool:
        """After a part of round 0: whether the sealed first weights are whole now."""
        with self._current(progress):
            attempt = progress.attempt
            if attempt is None or attempt.phase is not Phase.INIT or progress.asked != certificate.site:
                return False
            upload = progress.upload(certificate.site)
            draft = self._work / f"{upload.run}.{upload.attempt}.{upload.site}"
            try:
                self._spool.gather(upload, draft)
                complete = commit.whole(draft, certificate.signing)
            except (Invalid, Untrusted):
                self._spool.remove(upload)
                draft.unlink(missing_ok=True)
                raise
            if complete:
                progress.weights = draft
            else:
                draft.unlink()
            return complete

    @contextmanager
    def _current(self, progress: Progress) -> Iterator[None]:
        """The run's lock, with what the store says now."""
        with progress.lock:
            if progress.stale:
                load(progress, self._store, self._spool)
            yield

    @staticmethod
    def _late(progress: Progress, place: tuple[int, int], phase: Phase) -> bool:
        attempt = progress.attempt
        if attempt is None or place < progress.place:
            return True
        if place > progress.place:
            raise Conflict(f"Round {place[0]}, attempt {place[1]} is not open.")
        if attempt.phase is Phase.FAILED:
            return True
        if (attempt.phase is Phase.INIT) != (phase is Phase.INIT) or _ORDER.index(phase) > _ORDER.index(attempt.phase):
            raise Conflict(f"The attempt is in phase {attempt.phase}, not yet in {phase}.")
        return phase is not attempt.phase

    @staticmethod
    def _parse(site: str, phase: Phase, body: bytes) -> Signed:
        kind = _MESSAGES.get(phase)
        if kind is None:
            raise Invalid(f"There is no bundle of phase {phase}.", where="phase", todo=f"One of {', '.join(_ORDER)}.")
        message = kind.parse(body, where=phase)
        if getattr(message, "site", "") != site:
            raise Untrusted(
                f"The bundle names {getattr(message, 'site', 'nobody')}, but {site} sends it.", where="site"
            )
        return message

    def _check_repeat(self, progress: Progress, message: Signed) -> None:
        """Raises Conflict if the site sent something else before."""
        if isinstance(message, InitVote):
            if progress.votes.get(message.site) != message.sha256:
                raise Conflict(f"{message.site} already named other first weights.")
            return
        hub, attempt = progress.hub, progress.attempt
        assert hub is not None
        assert attempt is not None
        if isinstance(message, Keys):
            stored = self._store.messages(attempt.run, attempt.round, attempt.number, Phase.KEYS).get(message.site)
            if stored is not None and Participant.parse(stored).keys != message:
                raise Conflict(f"{message.site} already sent other keys for this attempt.")
        elif isinstance(message, Release):
            hub.add_release(message)
        else:
            _add(hub, message)

    def _count(self, progress: Progress, certificate: Certificate, phase: Phase, message: Signed, now: float) -> None:
        """Verifies and stores. Any failure to store puts the whole attempt in doubt: it is read again then."""
        attempt = progress.attempt
        assert attempt is not None
        key = (attempt.run, attempt.round, attempt.number)
        if isinstance(message, InitVote):
            message.check(certificate.signing)
            if message.opening != attempt.opening.digest():
                raise Untrusted("The vote is for another attempt.", where="opening")
            self._store.put_message(*key, phase, certificate.site, message.encode())
            progress.votes[certificate.site] = message.sha256
            return
        hub = progress.hub
        assert hub is not None
        if isinstance(message, Release):
            self._release(progress, hub, message, now)
            return
        body = message.encode()
        if isinstance(message, Keys):
            hub.add_keys(message, certificate, now)
            body = Participant(certificate=certificate, keys=message).encode()
        else:
            _add(hub, message)
        try:
            self._store.put_message(*key, phase, certificate.site, body)
        except KoinonError:
            progress.stale = True
            raise

    def _release(self, progress: Progress, hub: HubAttempt, message: Release, now: float) -> None:
        """A share in the clear: that one came is durable before it is used, the share itself never is."""
        assert progress.round is not None
        self._store.mark_released(progress.round.run, progress.round.number)
        hub.add_release(message)
        progress.releases[message.site] = message
        if hub.can_open:
            with suppress(Untrusted):  # a corrupt site's share: another quorum may do
                progress.masks = hub.open_keys()
                progress.openable_at = now


def _add(hub: HubAttempt, message: Signed) -> None:
    """Shares, Masked or a Vote into the attempt. Raises Conflict if the site said otherwise before, Untrusted."""
    if isinstance(message, Shares):
        hub.add_shares(message)
    elif isinstance(message, Masked):
        hub.add_masked(message)
    elif isinstance(message, Vote):
        hub.add_vote(message)
