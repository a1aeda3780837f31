"""A federation of real sites for the protocol tests: every step of a site goes through its journal.

A site's only memory is `journal`, the text of its last durable entry. Each step parses it, moves on, and writes it
back before a message leaves, so a crash at any point is what always happens here.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import blake3
import numpy as np

from koinon.domain import run, wire
from koinon.domain.errors import Conflict
from koinon.domain.keys import Certificate, Signed, SigningKey
from koinon.domain.layout import Segment
from koinon.protection import masking, ring, site
from koinon.protection.site import SiteAttempt

M = TypeVar("M", bound=Signed)
NOW = 1_000.0
MANIFEST = "ab" * 32


def secret(*parts: object) -> bytes:
    """32 bytes that depend on `parts` only."""
    return hashlib.sha256(repr(parts).encode()).digest()


def opening(members: Sequence["Member"], round: int = 1, attempt: int = 1, model: str = "a") -> wire.Opening:
    return wire.Opening(
        manifest=MANIFEST,
        run="run000",
        round=round,
        attempt=attempt,
        kind=run.Kind.TRAIN,
        parameters={"seed": 42},
        model=hashlib.sha256(model.encode()).hexdigest(),
        base=0,
        invited=tuple(sorted(member.name for member in members)),
        audit="cd" * 32,
    )


class Member:
    """One hospital: its keys, its journal, its update, and every message it ever sent, by step and context."""

    def __init__(self, name: str, words: int, n: int) -> None:
        self.name = name
        self.root = SigningKey(secret("root", name))
        self.signer = SigningKey(secret("signer", name))
        self.certificate = Certificate(
            site=name, epoch=1, signing=self.signer.public, recipient="age1", not_before=0, not_after=2_000
        ).signed(self.root)
        self.plain = codec(words, n).encode({"update": update(name, words)}, ring.rounding_seed(42, 1, name))
        self.journal: str | None = None
        self.sent: dict[tuple[str, str], bytes] = {}

    @property
    def state(self) -> SiteAttempt:
        """The attempt as a freshly started agent finds it."""
        if self.journal is None:
            raise Conflict(f"{self.name} has not joined anything.")
        return SiteAttempt.parse(self.journal)

    def step(self, move: Callable[[SiteAttempt], SiteAttempt]) -> None:
        self.journal = move(self.state).encode().decode()

    def send(self, message: Signed) -> None:
        """Law: two sends of one step are byte-identical. One step means one purpose in one opening or context."""
        body = message.model_dump()
        key = (message.purpose, body.get("opening") or body["context"])
        assert self.sent.setdefault(key, message.encode()) == message.encode()

    # -- the steps, each: durable first, then send ---------------------------------------------------------------

    def join(self, opening: wire.Opening) -> wire.Keys:
        previous = self.state if self.journal else None
        entropy = secret(self.name, opening.digest())
        self.journal = site.join(previous, opening, self.certificate, entropy).encode().decode()
        return self._out(self.state.keys_message(self.signer))

    def share(self, roster: wire.Roster, roots: dict[str, str]) -> wire.Shares:
        self.step(lambda state: state.accept_roster(roster, roots=roots, now=NOW))
        return self._out(self.state.shares_message(self.signer))

    def mask(self, inbox: dict[str, str]) -> tuple[wire.Masked, masking.Words]:
        """The signed message and the bytes that go with it."""
        self.step(lambda state: state.accept_inbox(inbox))
        self.step(lambda state: state.bind(hashlib.sha256(self.plain.tobytes()).hexdigest()))
        words = self.plain.copy()
        masking.apply(words, self.state.masks())
        root = blake3.blake3(words.tobytes()).hexdigest()
        self.step(lambda state: state.record_upload(words.nbytes, root))
        return self._out(self.state.masked_message(self.signer)), words

    def vote(self, survivors: wire.Survivors, vouched: Iterable[str], min_sites: int = 3) -> wire.Vote:
        self.step(
            lambda state: state.accept_survivors(
                survivors, vouched=frozenset(vouched), min_sites=min_sites, min_others=2
            )
        )
        return self._out(self.state.vote_message(self.signer))

    def release(self, votes: Iterable[wire.Vote]) -> wire.Release:
        self.step(lambda state: state.accept_votes(votes))
        return self._out(self.state.release_message(self.signer))

    def _out(self, message: M) -> M:
        self.send(message)
        return message


def codec(words: int, n: int) -> ring.Codec:
    return ring.Codec([Segment(name="update", size=words, bound="8", clip="each")], n)


def update(name: str, words: int) -> np.ndarray:
    """Half of the values at ±C and beyond, so that a sum that wraps would show."""
    generator = np.random.default_rng(int.from_bytes(secret(name)[:4]))
    return generator.choice([-9.0, -8.0, 8.0, 0.1, -1.7], words).astype(np.float32)


def members(count: int, words: int) -> dict[str, Member]:
    names = [f"s{index:02}" for index in range(count)]
    return {name: Member(name, words, count) for name in names}


def roots(sites: dict[str, Member]) -> dict[str, str]:
    return {name: member.root.public for name, member in sites.items()}


def plain_sum(sites: Iterable[Member]) -> masking.Words:
    total = np.sum([member.plain.view(np.int32).astype(np.int64) for member in sites], axis=0)
    assert np.abs(total).max() <= ring.HALF  # in integers, without the ring: nothing wraps
    return np.asarray(total.astype(np.int32).view(np.uint32))
