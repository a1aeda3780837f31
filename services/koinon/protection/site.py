"""A site's side of an attempt: a pure state machine whose state is one journal entry.

`join` starts an attempt; each `accept_…`, `bind` and `record_upload` takes what came in and returns the next state,
or raises and leaves everything as it was. Each `…_message` and `masks` are derived from the state alone.

The one rule for the driver: write the state durably (`encode`, one entry a run, replacing the last) BEFORE a message
derived from it leaves. After a crash `SiteAttempt.parse` goes on, and every message comes out byte for byte the same.
The order: join, keys_message, accept_roster, shares_message, accept_inbox, bind, masks, record_upload, masked_message,
accept_survivors, vote_message, accept_votes, release_message, end.
"""

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self, TypeVar

from pydantic import Field

from koinon.domain import wire
from koinon.domain.errors import Conflict, Refused, Unsupported, Untrusted
from koinon.domain.ids import Hash, Name
from koinon.domain.keys import Certificate, Signed, SigningKey, Wire
from koinon.domain.run import Kind
from koinon.domain.wire import Hex, Keys, Masked, Opening, Release, Roster, Shares, Survivors, Vote
from koinon.protection import graph, keying, masking, sharing
from koinon.protection import roster as rosters

M = TypeVar("M", bound=Signed)
T = TypeVar("T")


class SiteAttempt(Wire):
    """All that a site knows of the newest attempt of a run. Holds secrets until `accept_votes` or `end`."""

    opening: Opening
    certificate: Certificate
    entropy: Hash | None = Field(default=None, repr=False)  # every secret of the attempt derives from it
    first: tuple[Name, ...] | None = None  # the round's first roster, once seen
    released: bool = False  # the latch: this site opened its one survivor set of the round
    roster: Roster | None = Field(default=None, repr=False)
    context: Hash | None = None
    held: dict[Name, tuple[Hex, Hex]] | None = Field(default=None, repr=False)  # per sharer: seed share, key share
    update: Hash | None = None
    masked: Masked | None = None
    survivors: Survivors | None = None
    release: Release | None = Field(default=None, repr=False)

    @property
    def site(self) -> str:
        return self.certificate.site

    def keys_message(self, signer: SigningKey) -> Keys:
        return self._sign(self._keys(), signer)

    def accept_roster(self, roster: Roster, *, roots: Mapping[str, str], now: float) -> Self:
        """`roots`: the members' root keys (hex) from the granted manifest. Raises Untrusted or Refused."""
        if self.roster is not None:
            return self._unchanged(self.roster, roster)
        rosters.check(roster, self.opening, roots, now, self.first)
        mine = next((p for p in roster.participants if p.keys.site == self.site), None)
        if mine is None or mine.certificate != self.certificate or mine.keys.body() != self._keys().body():
            raise Refused(f"The roster does not have the keys of {self.site}.")
        return self._with(roster=roster, first=roster.first, context=wire.context(self.opening, roster))

    def shares_message(self, signer: SigningKey) -> Shares:
        roster, bound = self._roster()
        secret, sealed = self._secret("share-key"), {}
        for participant, share in zip(roster.participants, self._split(), strict=True):
            peer = participant.keys
            if peer.site != self.site:
                key = keying.agree(secret, peer.share_key, "share", bound, self.site, peer.site)
                sealed[peer.site] = base64.urlsafe_b64encode(
                    keying.seal(key, b"".join(share), bound, self.site, peer.site)
                ).decode()
        return self._sign(Shares(context=bound, site=self.site, sealed=sealed), signer)

    def accept_inbox(self, inbox: Mapping[str, str]) -> Self:
        """The sealed shares that peers addressed to this site; the first inbox that can be opened counts for good.

        Raises Untrusted naming the peer whose share cannot be opened, Refused if too few peers are left.
        """
        if self.held is not None:
            return self
        roster, bound = self._roster()
        rosters.require_crowd(roster, {self.site, *inbox})
        senders = {p.keys.site: p.keys.share_key for p in roster.participants if p.keys.site != self.site}
        secret = self._secret("share-key")
        own_seed, own_key = self._split()[roster.sites.index(self.site)]
        held = {self.site: (own_seed.hex(), own_key.hex())}
        for peer, sealed in inbox.items():
            if peer not in senders:
                raise Untrusted(f"{peer} is not in the roster.")
            key = keying.agree(secret, senders[peer], "share", bound, peer, self.site)
            held[peer] = _open_share(key, sealed, bound, peer, self.site)
        return self._with(held=held)

    def bind(self, update: str) -> Self:
        """Fixes the plain update (SHA-256, hex) that this attempt masks. Raises Conflict for another one."""
        self._held()
        if self.update not in (None, update):
            raise Conflict("This attempt already masks another update.")
        return self._with(update=update)

    def masks(self) -> list[masking.Mask]:
        """What to `masking.apply` to the encoded update that was bound: own mask and those with all sharing peers."""
        roster, bound = self._roster()
        held, secret = self._held(), self._secret("mask-key")
        if self.update is None:
            raise Conflict("No update is bound to this attempt yet.")
        peers = {p.keys.site: p.keys.mask_key for p in roster.participants}
        return [
            masking.own(self._secret("seed"), bound),
            *(
                masking.pair(secret, peers[peer], bound, self.site, peer)
                for peer in graph.neighbours(roster.sites, roster.k, self.site)
                if peer in held
            ),
        ]

    def record_upload(self, size: int, root: str) -> Self:
        """The masked update that is stored and will be sent: `size` in bytes, BLAKE3 `root` in hex."""
        _, bound = self._roster()
        if self.update is None:
            raise Conflict("No update is bound to this attempt yet.")
        sharers = rosters.sharers_hash(self._held())
        masked = Masked(context=bound, site=self.site, size=size, root=root, sharers=sharers)
        return self._unchanged(self.masked, masked) if self.masked else self._with(masked=masked)

    def masked_message(self, signer: SigningKey) -> Masked:
        return self._sign(_known(self.masked, "an upload"), signer)

    def accept_survivors(
        self, survivors: Survivors, *, vouched: Collection[str], min_sites: int, min_others: int
    ) -> Self:
        """The one set that this site will vote for in this attempt.

        `vouched` are the peers whose root in the manifest this hospital compared itself; the minima are the larger of
        the manifest's and the site's own. Raises Refused for a crowd that is too small or too loosely masked,
        Untrusted if a survivor did not sign its upload, or not as masked with exactly the sharers this site holds.
        """
        if self.survivors is not None:
            return self._unchanged(self.survivors, survivors)
        roster, bound = self._roster()
        inside = set(survivors.roots)
        if survivors.context != bound or list(survivors.sharers) != sorted(self._held()):
            raise Untrusted("The survivors are not of the sites that shared with this one.")
        if not inside <= set(survivors.sharers) or inside != set(survivors.signatures):
            raise Untrusted("A survivor did not share, or did not sign its upload.")
        if self.site in inside and (self.masked is None or self.masked.root != survivors.roots[self.site]):
            raise Untrusted(f"The upload named for {self.site} is not the one it made.")
        others = len(inside & set(vouched) - {self.site})
        if len(inside) < min_sites or others < min_others:
            raise Refused(
                f"{len(inside)} survivors, {others} others of them vouched for; "
                f"this site wants {min_sites} and {min_others}."
            )
        rosters.require_crowd(roster, inside)
        rosters.check_uploads(survivors, roster)
        return self._with(survivors=survivors)

    def vote_message(self, signer: SigningKey) -> Vote:
        survivors = _known(self.survivors, "a survivor set")
        return self._sign(Vote(context=survivors.context, site=self.site, survivors=survivors.digest()), signer)

    def accept_votes(self, votes: Iterable[Vote]) -> Self:
        """Releases this site's shares once t sites signed the set it voted for, and forgets every other secret.

        Raises Refused for fewer, Untrusted for a vote that is not by a site of the roster or not for the set.
        """
        if self.released:
            return self
        roster, bound = self._roster()
        survivors = _known(self.survivors, "a survivor set")
        digest, signers = survivors.digest(), {p.keys.site: p.certificate.signing for p in roster.participants}
        voters = set()
        for vote in votes:
            if vote.site not in signers or vote.survivors != digest or vote.context != bound:
                raise Untrusted(f"The vote of {vote.site} is not for these survivors.")
            vote.check(signers[vote.site])
            voters.add(vote.site)
        if len(voters) < roster.t:
            raise Refused(f"{len(voters)} sites voted for these survivors; it takes {roster.t}.")
        held = self._held()
        release = Release(
            context=bound,
            site=self.site,
            survivors=digest,
            seeds={site: held[site][0] for site in survivors.sharers if site in survivors.roots},
            mask_keys={site: held[site][1] for site in survivors.sharers if site not in survivors.roots},
        )
        return self._with(release=release, released=True, entropy=None, held=None)

    def release_message(self, signer: SigningKey) -> Release:
        return self._sign(_known(self.release, "a quorum of votes"), signer)

    def end(self) -> Self:
        """The round is over, or this site leaves it: no secret remains, what keeps the latch does."""
        return self._with(entropy=None, held=None, release=None)

    # -- what follows from the state ----------------------------------------------------------------------------

    def _secret(self, purpose: str) -> bytes:
        if self.entropy is None:
            raise Refused("The secrets of this attempt are erased.")
        return keying.derive(bytes.fromhex(self.entropy), purpose, self.opening.digest())

    def _keys(self) -> Keys:
        opening = self.opening.digest()
        return Keys(
            opening=opening,
            site=self.site,
            mask_key=keying.public_of(self._secret("mask-key")),
            share_key=keying.public_of(self._secret("share-key")),
            seed_commitment=keying.commitment(self._secret("seed"), opening, self.site),
        )

    def _split(self) -> list[tuple[bytes, bytes]]:
        """Per site of the roster its share of this site's seed and of its mask key."""
        roster, bound = self._roster()
        t, m = roster.t, len(roster.sites)
        columns = (
            sharing.split(self._secret(name), t, m, keying.derive(self._secret(f"split-{name}"), bound))
            for name in ("seed", "mask-key")
        )
        return list(zip(*columns, strict=True))

    def _roster(self) -> tuple[Roster, str]:
        return _known(self.roster, "a roster"), _known(self.context, "a roster")

    def _held(self) -> dict[str, tuple[str, str]]:
        return _known(self.held, "the peers' shares")

    def _with(self, **changes: Any) -> Self:
        return self.model_copy(update=changes)

    def _unchanged(self, known: Wire, shown: Wire) -> Self:
        if known != shown:
            raise Refused(f"This attempt already has another {type(known).__name__.lower()}.")
        return self

    def _sign(self, message: M, signer: SigningKey) -> M:
        if signer.public != self.certificate.signing:
            raise Conflict("The signing key is not the one this attempt was joined with.")
        return message.signed(signer)


def join(previous: SiteAttempt | None, opening: Opening, certificate: Certificate, entropy: bytes) -> SiteAttempt:
    """The journal entry of a new attempt; it replaces `previous`, the run's last entry, and so erases its secrets.

    `entropy` are 32 fresh random bytes. The same opening again gives `previous` back. Raises Refused for an older
    round or attempt, and for any other attempt of a round of which this site released shares.
    """
    if opening.protocol != wire.PROTOCOL:
        raise Unsupported(f"This site speaks protocol {wire.PROTOCOL}, not {opening.protocol}.")
    if opening.kind is Kind.INIT or certificate.site not in opening.invited:
        raise Refused(f"{certificate.site} has no part in this attempt.")
    if len(entropy) != keying.KEY_BYTES:
        raise ValueError(f"entropy is {keying.KEY_BYTES} bytes")
    first = None
    if previous is not None:
        if previous.opening == opening:
            return previous
        before, now = previous.opening, opening
        if (now.run, now.manifest) != (before.run, before.manifest):
            raise ValueError("each run has a journal entry of its own")
        if (now.round, now.attempt) <= (before.round, before.attempt):
            raise Refused(f"This site is already at round {before.round}, attempt {before.attempt}.")
        if now.round == before.round:
            if previous.released:
                raise Refused(f"This site released its shares of round {now.round}; the round opens once.")
            first = previous.first
    return SiteAttempt(opening=opening, certificate=certificate, entropy=entropy.hex(), first=first)


def _open_share(key: bytes, sealed: str, bound: str, sender: str, receiver: str) -> tuple[str, str]:
    try:
        plain = keying.unseal(key, base64.urlsafe_b64decode(sealed), bound, sender, receiver)
    except (Untrusted, binascii.Error):
        plain = b""
    if len(plain) != 2 * sharing.SHARE_BYTES:
        raise Untrusted(f"The share from {sender} cannot be opened.")
    return plain[: sharing.SHARE_BYTES].hex(), plain[sharing.SHARE_BYTES :].hex()


def _known(value: T | None, what: str) -> T:
    if value is None:
        raise Conflict(f"This attempt has not seen {what} yet, or is over.")
    return value
