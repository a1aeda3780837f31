"""The adversary: the hub and one corrupt site of four, against three honest ones. What it does and what it knows.

It keeps every message and shows any site anything. Its own site has no memory and signs whatever helps. The honest
sites live in their journals (tests/protocol/federation.py).
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Collection
from itertools import combinations
from typing import TypeVar

import blake3
from hypothesis.stateful import RuleBasedStateMachine

from koinon.domain import wire
from koinon.domain.errors import KoinonError
from koinon.protection import hub as hubs
from koinon.protection import masking, site
from koinon.protection import roster as rosters
from tests.protocol import federation
from tests.protocol.federation import NOW

T = TypeVar("T")
WORDS = 8
LEAGUE_SIZE = 4  # c = 1, t = 3: the adversary needs two honest releases to open a set
HONEST, CORRUPT = ("s00", "s01", "s02"), "s03"
EVERYBODY = (*HONEST, CORRUPT)
VOUCHED = {"s00": {"s01", "s02"}, "s01": {"s00", "s03"}, "s02": {"s00", "s01", "s03"}}


class Adversary(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.league = federation.members(LEAGUE_SIZE, WORDS)
        self.roots = federation.roots(self.league)
        self.openings: dict[str, wire.Opening] = {}
        self.keys: dict[str, dict[str, wire.Keys]] = defaultdict(dict)  # by opening, site
        self.rosters: dict[str, tuple[wire.Opening, wire.Roster]] = {}  # by context
        self.shares: dict[str, dict[str, wire.Shares]] = defaultdict(dict)  # by context, site
        self.uploads: dict[str, dict[str, tuple[wire.Masked, masking.Words]]] = defaultdict(dict)
        self.words: dict[str, masking.Words] = {}  # by root
        self.sets: dict[str, wire.Survivors] = {}  # by digest
        self.votes: dict[str, dict[str, wire.Vote]] = defaultdict(dict)  # by digest of the set
        self.releases: dict[str, dict[str, wire.Release]] = defaultdict(dict)
        self.secrets: dict[str, dict[str, bytes]] = defaultdict(dict)  # entropy, by site and opening
        self.summed: set[str] = set()

    # -- moves: each shows something to sites and keeps what they answer -------------------------------------------

    def show_opening(self, opening: wire.Opening, sites: Collection[str]) -> None:
        digest = opening.digest()
        self.openings[digest] = opening
        self.keys[digest][CORRUPT] = self._puppet(opening).keys_message(self.league[CORRUPT].signer)
        for name in sites:
            self.secrets[name][digest] = federation.secret(name, digest)
            _ask(self.keys[digest], name, self.league[name].join, opening)

    def compose_roster(self, opening: wire.Opening, crowd: Collection[str], first: Collection[str] | None) -> str:
        participants = [
            wire.Participant(certificate=self.league[name].certificate, keys=keys)
            for name, keys in self.keys[opening.digest()].items()
            if name in crowd
        ]
        roster = rosters.build(participants, sorted(first) if first is not None else None)
        context = wire.context(opening, roster)
        self.rosters[context] = (opening, roster)
        return context

    def show_roster(self, context: str, sites: Collection[str]) -> None:
        _, roster = self.rosters[context]
        for name in sites:
            _ask(self.shares[context], name, self.league[name].share, roster, self.roots)
        state = self._puppet_at(context)
        if state is not None:
            self.shares[context][CORRUPT] = state.shares_message(self.league[CORRUPT].signer)

    def inbox(self, context: str, site: str, sharers: Collection[str]) -> dict[str, str]:
        sent = self.shares[context]
        return {peer: sent[peer].sealed[site] for peer in sharers if peer in sent and site in sent[peer].sealed}

    def show_inbox(self, context: str, sharers: Collection[str], sites: Collection[str]) -> None:
        for name in sites:
            _ask(self.uploads[context], name, self.league[name].mask, self.inbox(context, name, sharers))

    def compose_survivors(self, context: str, sharers: Collection[str], crowd: Collection[str]) -> str:
        """A set with the best signatures there are: the corrupt site's upload is made to fit."""
        state = self._puppet_at(context, sharers)
        if state is not None and CORRUPT in crowd:
            self._puppet_upload(context, state)
        uploads = {name: masked for name, (masked, _) in sorted(self.uploads[context].items()) if name in crowd}
        self.words |= {masked.root: words for masked, words in self.uploads[context].values()}
        survivors = wire.Survivors(
            context=context,
            sharers=tuple(sorted(sharers)),
            size=4 * WORDS,
            roots={name: masked.root for name, masked in uploads.items()},
            signatures={name: masked.signature for name, masked in uploads.items()},
        )
        digest = survivors.digest()
        self.sets[digest] = survivors
        vote = wire.Vote(context=context, site=CORRUPT, survivors=digest)
        self.votes[digest][CORRUPT] = vote.signed(self.league[CORRUPT].signer)
        return digest

    def show_survivors(self, digest: str, sites: Collection[str]) -> None:
        for name in sites:
            _ask(self.votes[digest], name, self.league[name].vote, self.sets[digest], VOUCHED[name])

    def show_votes(self, digest: str, sites: Collection[str]) -> None:
        for name in sites:
            answers: dict[str, wire.Release] = {}
            _ask(answers, name, self.league[name].release, list(self.votes[digest].values()))
            for release in answers.values():  # NB: a site that released before says the same again
                self.releases[release.survivors][name] = release

    # -- what the adversary knows and can do itself ----------------------------------------------------------------

    def _puppet(self, opening: wire.Opening) -> site.SiteAttempt:
        return site.join(None, opening, self.league[CORRUPT].certificate, federation.secret(CORRUPT, opening.digest()))

    def _puppet_at(self, context: str, sharers: Collection[str] | None = None) -> site.SiteAttempt | None:
        """The corrupt site in this roster, with these shares, whatever it did before; None if it has no part in it."""
        opening, roster = self.rosters[context]
        try:
            state = self._puppet(opening).accept_roster(roster, roots=self.roots, now=NOW)
            if sharers is None:
                return state
            return state.accept_inbox(self.inbox(context, CORRUPT, set(sharers) - {CORRUPT}))
        except KoinonError:
            return None

    def _puppet_upload(self, context: str, state: site.SiteAttempt) -> None:
        member = self.league[CORRUPT]
        words, state = member.plain.copy(), state.bind("00" * 32)
        masking.apply(words, state.masks())
        state = state.record_upload(words.nbytes, blake3.blake3(words.tobytes()).hexdigest())
        self.uploads[context][CORRUPT] = (state.masked_message(member.signer), words)

    def _opens(self, digest: str) -> bool:
        _, roster = self.rosters[self.sets[digest].context]
        honest = len(self.releases[digest])
        return honest > 0 and honest + (CORRUPT in roster.sites) >= roster.t

    def _known(self, context: str, kind: str) -> set[str]:
        """Sites of which enough shares of this kind are out to reconstruct the secret."""
        _, roster = self.rosters[context]
        counts: dict[str, int] = defaultdict(lambda: int(CORRUPT in roster.sites))
        for digest, releases in self.releases.items():
            if self.sets[digest].context == context:
                for release in releases.values():
                    for name in getattr(release, kind):
                        counts[name] += 1
        return {name for name, count in counts.items() if count >= roster.t}

    def _masked_with(self, context: str, one: str, other: str) -> set[str]:
        """Which of the two uploaded with the pair's mask in it."""
        return {
            a
            for a, b in ((one, other), (other, one))
            if a in self.uploads[context] and b in self._sharers_of(context, a)
        }

    def _sharers_of(self, context: str, name: str) -> Collection[str]:
        claimed = self.uploads[context][name][0].sharers
        subsets = (c for size in range(2, LEAGUE_SIZE + 1) for c in combinations(EVERYBODY, size))
        return next(subset for subset in subsets if rosters.sharers_hash(subset) == claimed)

    def _hub(self, digest: str) -> hubs.HubAttempt:
        survivors = self.sets[digest]
        opening, roster = self.rosters[survivors.context]
        first = None if opening.attempt == 1 else roster.first
        hub = hubs.HubAttempt(opening, self.roots, 4 * WORDS, first=first, roster=roster, survivors=survivors)
        for release in self.releases[digest].values():
            hub.add_release(release)
        state = self._puppet_at(survivors.context, survivors.sharers)
        if state is not None and state.held is not None:
            held, alive = state.held, survivors.roots
            forged = wire.Release(
                context=survivors.context,
                site=CORRUPT,
                survivors=digest,
                seeds={name: held[name][0] for name in survivors.sharers if name in alive},
                mask_keys={name: held[name][1] for name in survivors.sharers if name not in alive},
            )
            hub.add_release(forged.signed(self.league[CORRUPT].signer))
        return hub


def _ask(answers: dict[str, T], name: str, move: Callable[..., T], *shown: object) -> None:
    """Keeps what a site answers to what it is shown; it may refuse, in an orderly way."""
    with contextlib.suppress(KoinonError):
        answers[name] = move(*shown)
