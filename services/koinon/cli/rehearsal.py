"""One round of the real protocol in one process, for `koinon check`: what the federation would read of an update."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3

from koinon.artifacts import keyfiles
from koinon.domain import canonical, contract, manifest, metrics, wire
from koinon.domain.keys import Certificate, SigningKey
from koinon.domain.layout import Segment
from koinon.domain.run import Kind
from koinon.protection import masking, ring, site
from koinon.protection.hub import HubAttempt

SITES = ("left", "middle", "right")
_NOTHING = canonical.digest("rehearsal")


@dataclass(frozen=True)
class Heard:
    """What three sites with the same update open. `error`: the largest distance of their mean from it, by rounding.

    `norm` is the L2 norm of the weighted update, which is clipped to `bound`.
    """

    error: float
    norm: float
    bound: float
    clipped: bool
    upload_bytes: int
    seconds: float


def hold(
    update: Any, weight: int, evaluation: dict[str, Any], agreed: contract.Contract, protection: manifest.Protection
) -> Heard:
    """Encodes, masks, opens and decodes an update (float32[D]) as three sites and a hub do."""
    began = time.perf_counter()
    names = metrics.default(agreed.target.task)
    segments = (
        Segment(name="update", size=update.size, bound=protection.clip, clip="l2"),
        Segment(name="weight", size=1, bound=str(protection.row_cap), whole=True),
        Segment(name="clipped", size=1, bound="1", whole=True),
        *metrics.segments(names, protection.row_cap),
    )
    codec = ring.Codec(segments, len(SITES))
    values = {"update": update, "weight": [weight], **metrics.words(names, evaluation)}
    sums = codec.decode(_round(codec, values, weight))
    opened = np.asarray(sums["update"], dtype=np.float64) / float(sums["weight"][0])
    return Heard(
        error=float(np.abs(opened - update).max()),
        norm=float(np.linalg.norm(update.astype(np.float64))) * weight,
        bound=manifest.decimal(protection.clip),
        clipped=bool(sums["clipped"][0]),
        upload_bytes=4 * codec.size,
        seconds=time.perf_counter() - began,
    )


def _round(codec: ring.Codec, values: dict[str, Any], weight: int) -> Any:
    """The opened words of the sum over the sites, by the state machines that hub and agents run."""
    now = time.time()
    signers = {name: SigningKey(os.urandom(32)) for name in SITES}
    certificates = {name: _certificate(name, signer, now) for name, signer in signers.items()}
    opening = wire.Opening(
        manifest=_NOTHING, run="rehearsal", round=1, attempt=1, kind=Kind.TRAIN, parameters={}, model=_NOTHING,
        invited=SITES, audit=_NOTHING,
    )  # fmt: skip
    roots = {name: signer.public for name, signer in signers.items()}
    hub = HubAttempt(opening, roots, 4 * codec.size)
    states = {name: site.join(None, opening, certificates[name], os.urandom(32)) for name in SITES}
    for name in SITES:
        hub.add_keys(states[name].keys_message(signers[name]), certificates[name], now)
    for name in SITES:
        states[name] = states[name].accept_roster(hub.roster(), roots=roots, now=now)
        hub.add_shares(states[name].shares_message(signers[name]))
    total = np.zeros(codec.size, np.uint32)
    for name in SITES:
        state = states[name].accept_inbox(hub.inbox(name)).bind(_NOTHING)
        words = codec.encode(values, ring.rounding_seed(42, 1, name), factors={"update": float(weight)})
        masking.apply(words, state.masks())
        total += words
        states[name] = state.record_upload(words.nbytes, blake3(words.tobytes()).hexdigest())
        hub.add_masked(states[name].masked_message(signers[name]))
    for name in SITES:
        states[name] = states[name].accept_survivors(hub.survivors(), vouched=SITES, min_sites=3, min_others=2)
        hub.add_vote(states[name].vote_message(signers[name]))
    for name in SITES:
        states[name] = states[name].accept_votes(hub.votes())
        hub.add_release(states[name].release_message(signers[name]))
    masking.remove(total, hub.open_keys())
    return total


def _certificate(name: str, signer: SigningKey, now: float) -> Certificate:
    return Certificate(
        site=name, epoch=1, signing=signer.public, recipient=keyfiles.new_identity().recipient,
        not_before=int(now) - 1, not_after=int(now) + 3_600,
    ).signed(signer)  # fmt: skip
