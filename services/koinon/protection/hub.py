"""The hub's side of an attempt: a pure state machine over the sites' signed messages.

It verifies every message before it counts, takes a repeated message once, and refuses a second, different one.
Phases close when the hub looks: `roster`, `sharers` (and `inbox`) and `survivors` are computed on the first call and
never change after. A restarted hub builds the attempt again from the stored roster, survivors and messages; releases
are never stored, sites send them again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from koinon.domain.errors import Conflict, Refused, Untrusted
from koinon.domain.keys import Certificate, Wire
from koinon.domain.wire import Keys, Masked, Opening, Participant, Release, Roster, Shares, Survivors, Vote, context
from koinon.protection import graph, keying, masking, sharing
from koinon.protection import roster as rosters

M = TypeVar("M", bound=Wire)


class HubAttempt:
    """One attempt.

    `roots` are the members' root keys (hex) from the manifest, `size` is what an upload weighs in bytes, `first` are
    the sites of the round's first attempt (None in it). `roster` and `survivors` are what a hub stored before it
    crashed. Every `add_…` raises Untrusted for a message that is not what its site may send, Conflict for one that
    differs from an earlier one or comes after its phase closed.
    """

    def __init__(
        self,
        opening: Opening,
        roots: Mapping[str, str],
        size: int,
        *,
        first: Sequence[str] | None = None,
        roster: Roster | None = None,
        survivors: Survivors | None = None,
    ) -> None:
        if (first is None) != (opening.attempt == 1):
            raise ValueError("the first attempt has no first roster, every later one has")
        self.opening = opening
        self._roots, self._size, self._first = roots, size, first
        self._roster, self._survivors = roster, survivors
        self._sharers = survivors.sharers if survivors else None
        self._digest = ""
        self._context = context(opening, roster) if roster else ""
        self._participants: dict[str, Participant] = {p.keys.site: p for p in roster.participants} if roster else {}
        self._shares: dict[str, Shares] = {}
        self._masked: dict[str, Masked] = {}
        self._votes: dict[str, Vote] = {}
        self._releases: dict[str, Release] = {}

    def __repr__(self) -> str:
        return f"HubAttempt(round={self.opening.round}, attempt={self.opening.attempt})"

    def add_keys(self, keys: Keys, certificate: Certificate, now: float) -> None:
        """A site finished training; `certificate` is its current one, valid at `now`."""
        participant = Participant(certificate=certificate, keys=keys)
        if self._is_new(self._participants, keys.site, participant, closed=self._roster is not None):
            if self._first is not None and keys.site not in self._first:
                raise Conflict(f"{keys.site} was not in the round's first attempt.")
            rosters.check_participant(participant, self.opening, self._roots, now)
            rosters.require_distinct([*self._participants.values(), participant])
            self._participants[keys.site] = participant

    def roster(self) -> Roster:
        """Closes the keys. Raises Refused if too few sites finished for anything to be opened."""
        if self._roster is None:
            roster = rosters.build(list(self._participants.values()), self._first)
            rosters.require_crowd(roster, roster.sites)
            self._roster, self._context = roster, context(self.opening, roster)
        return self._roster

    def add_shares(self, shares: Shares) -> None:
        if self._is_new(self._shares, shares.site, shares, closed=self._sharers is not None):
            self._check(shares)
            if set(shares.sealed) != set(self.roster().sites) - {shares.site}:
                raise Untrusted(f"{shares.site} did not share with every site of the roster.")
            self._shares[shares.site] = shares

    def sharers(self) -> tuple[str, ...]:
        """Closes the shares: the sites, sorted, whose shares go round. Raises Refused if they are too few."""
        if self._sharers is None:
            rosters.require_crowd(self.roster(), self._shares)
            self._sharers = tuple(sorted(self._shares))
        return self._sharers

    def inbox(self, site: str) -> dict[str, str]:
        """The sealed shares addressed to `site`, by sender."""
        return {peer: self._shares[peer].sealed[site] for peer in self.sharers() if peer != site}

    def add_masked(self, masked: Masked) -> None:
        """An upload whose bytes were verified against its root."""
        if self._is_new(self._masked, masked.site, masked, closed=self._survivors is not None):
            self._check(masked)
            if masked.site not in self.sharers() or masked.sharers != rosters.sharers_hash(self.sharers()):
                raise Untrusted(f"The upload of {masked.site} is not masked with the sites that shared.")
            if masked.size != self._size:
                raise Untrusted(f"The upload of {masked.site} has {masked.size} bytes, not {self._size}.")
            self._masked[masked.site] = masked

    def survivors(self) -> Survivors:
        """Closes the uploads: the one set that may be opened. Raises Refused if it is too small."""
        if self._survivors is None:
            rosters.require_crowd(self.roster(), self._masked)
            uploads = sorted(self._masked.items())
            self._survivors = Survivors(
                context=self._context,
                sharers=self.sharers(),
                size=self._size,
                roots={site: masked.root for site, masked in uploads},
                signatures={site: masked.signature for site, masked in uploads},
            )
        return self._survivors

    def _survivors_digest(self) -> str:
        """Asked for with every vote and release; at 300 sites it takes milliseconds."""
        if not self._digest:
            self._digest = self.survivors().digest()
        return self._digest

    def add_vote(self, vote: Vote) -> None:
        if self._is_new(self._votes, vote.site, vote, closed=False):
            self._check(vote)
            if vote.survivors != self._survivors_digest():
                raise Untrusted(f"{vote.site} voted for another survivor set.")
            self._votes[vote.site] = vote

    def votes(self) -> tuple[Vote, ...]:
        """The votes so far, by site; sites release against `roster().t` of them."""
        return tuple(vote for _, vote in sorted(self._votes.items()))

    def add_release(self, release: Release) -> None:
        if self._is_new(self._releases, release.site, release, closed=False):
            self._check(release)
            survivors = self.survivors()
            dropped = set(survivors.sharers) - set(survivors.roots)
            if release.survivors != self._survivors_digest() or set(release.seeds) != set(survivors.roots):
                raise Untrusted(f"{release.site} released shares for another survivor set.")
            if set(release.mask_keys) != dropped or not _are_shares(release):
                raise Untrusted(f"{release.site} did not release one share for every sharer.")
            self._releases[release.site] = release

    @property
    def can_open(self) -> bool:
        return self._roster is not None and len(self._releases) >= self._roster.t

    def open_keys(self) -> list[masking.Mask]:
        """The masks that are in the sum of the survivors' uploads, to be `masking.remove`d.

        Raises Refused before t releases are there, Untrusted if no t of them in a row agree with what the sites
        committed to (a corrupt site can deny an opening, it cannot change what is opened).
        """
        roster = self.roster()
        releases = [release for _, release in sorted(self._releases.items())]
        if not self.can_open:
            raise Refused(f"{len(releases)} sites released their shares; it takes {roster.t}.")
        for start in range(len(releases) if len(releases) > roster.t else 1):
            try:
                return self._masks((releases[start:] + releases[:start])[: roster.t])
            except Untrusted:
                continue
        raise Untrusted("The released shares do not fit what the sites committed to.")

    def _masks(self, releases: Sequence[Release]) -> list[masking.Mask]:
        roster, survivors = self.roster(), self.survivors()
        position = {site: x for x, site in enumerate(roster.sites, 1)}
        lagrange = sharing.Lagrange([position[release.site] for release in releases])
        seeds = {s: lagrange.combine([bytes.fromhex(r.seeds[s]) for r in releases]) for s in survivors.roots}
        dropped = set(survivors.sharers) - set(survivors.roots)
        secrets = {s: lagrange.combine([bytes.fromhex(r.mask_keys[s]) for r in releases]) for s in dropped}
        opening = self.opening.digest()
        for site, seed in seeds.items():
            if keying.commitment(seed, opening, site) != self._participants[site].keys.seed_commitment:
                raise Untrusted(f"The seed of {site} is not the one it committed to.")
        for site, secret in secrets.items():
            if keying.public_of(secret) != self._participants[site].keys.mask_key:
                raise Untrusted(f"The mask key of {site} is not the one it announced.")
        return [
            *(masking.own(seed, self._context) for seed in seeds.values()),
            *self._left_over(sorted(secrets.items())),
        ]

    def _left_over(self, secrets: Iterable[tuple[str, bytes]]) -> Iterable[masking.Mask]:
        """The pairwise masks that survivors added for dropped sites, which nothing in the sum cancels."""
        roster, survivors = self.roster(), self.survivors().roots
        for site, secret in secrets:
            for peer in graph.neighbours(roster.sites, roster.k, site):
                if peer in survivors:
                    mask_key = self._participants[peer].keys.mask_key
                    key, sign = masking.pair(secret, mask_key, self._context, site, peer)
                    yield key, -sign

    def _check(self, message: Shares | Masked | Vote | Release) -> None:
        self.roster()
        participant = self._participants.get(message.site)
        if participant is None:
            raise Untrusted(f"{message.site} is not in the roster of this attempt.")
        if message.context != self._context:
            raise Untrusted(f"The {message.purpose} of {message.site} is of another attempt.")
        message.check(participant.certificate.signing)

    def _is_new(self, known: Mapping[str, M], site: str, message: M, *, closed: bool) -> bool:
        if known.get(site) == message:
            return False
        if site in known:
            raise Conflict(f"{site} already sent something else for this phase.")
        if closed:
            raise Conflict(f"The phase closed before this message of {site} came.")
        return True


def _are_shares(release: Release) -> bool:
    values = [*release.seeds.values(), *release.mask_keys.values()]
    return all(len(value) == 2 * sharing.SHARE_BYTES for value in values)
