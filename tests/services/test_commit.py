"""A commit that is cut off after any of its writes is made again with the same bytes; the sum stays in memory."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pytest

from koinon.aggregation.commit import Committer, Keys, Sum
from koinon.artifacts import keyfiles, sealing, stores
from koinon.domain import tensors, wire
from koinon.domain.errors import Invalid, Unavailable, Untrusted
from koinon.domain.keys import SigningKey
from koinon.domain.manifest import Manifest
from koinon.domain.run import Kind, Phase, RunState
from koinon.domain.wire import Opening, Roster
from koinon.protection import masking, ring
from koinon.store.records import Run
from koinon.store.store import Store
from tests.services import federation
from tests.unit.domain import manifests

IDENTITY = keyfiles.new_identity()
SIGNER, SITE = SigningKey(b"h" * 32), SigningKey(b"s" * 32)
RUN = "run001"


class Cut:
    """A real store or artifact store whose connection is lost once, right after the given verb did its work."""

    def __init__(self, real: Any, verb: str) -> None:
        self._real, self._verb, self.cut = real, verb, False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name != self._verb or self.cut:
            return found

        def once(*arguments: Any, **named: Any) -> Any:
            found(*arguments, **named)
            self.cut = True
            raise Unavailable("The answer was lost.")

        return once


class Hub:
    """What a hub's process has: the folder and the store stay when it is started again."""

    def __init__(self, folder: Path, store: Store, strategy: str) -> None:
        self.folder, self.store = folder, store
        self.artifacts = stores.from_url((folder / "artifacts").as_uri())
        recipient = {"signing": SIGNER.public, "recipient": IDENTITY.recipient}
        reader = [{"name": "ada", "recipient": IDENTITY.recipient}]
        self.manifest = Manifest.of(manifests.values(hub=recipient, recipients=reader))
        store.add_project(self.manifest, "ada")
        parameters = {name: choice.default for name, choice in self.manifest.parameters.items()}
        chosen = {name: self.manifest.parameters[name].coerce(value) for name, value in parameters.items()}
        chosen["strategy"] = strategy
        store.add_run(RUN, self.manifest.digest(), "ada", chosen)
        store.set_run_state(RUN, RunState.RUNNING)

    def committer(self, store: Any = None, artifacts: Any = None) -> Committer:
        keys = Keys(SIGNER, IDENTITY)
        return Committer(store or self.store, artifacts or self.artifacts, keys, self.folder / "work")

    def opening(self, round: int, kind: Kind) -> Opening:
        run = self.store.run(RUN)
        opening = Opening(
            manifest=self.manifest.digest(), run=RUN, round=round, attempt=1, kind=kind, parameters=run.parameters,
            model=run.model.plaintext if run.model else None, base=run.model_round, invited=federation.SITES,
            audit=self.store.head(RUN),
        )  # fmt: skip
        self.store.open_round(opening, 4e9)
        return opening

    def init(self, committer: Committer, *, sha256: str = "", signer: str = SITE.public) -> Opening:
        """Opens round 0 and hands in first weights, sealed by a site."""
        opening = self.opening(0, Kind.INIT)
        shapes = tensors.named(self.manifest.layout(opening.parameters), "model")
        text = tensors.header(shapes) + np.arange(5, dtype="<f4").tobytes()
        named = sha256_of(text)
        prepared = sealing.prepare(
            manifest=opening.manifest, run=RUN, round=0, kind="init", parent=None, plaintext=named, length=len(text),
            recipients=[IDENTITY.recipient], content_key=sealing.new_content_key(), signer=SITE,
        )  # fmt: skip
        path = self.folder / "weights"
        sealing.seal(text, prepared, path, signer=SITE.public)
        committer.weights(self.manifest, opening, path, signer, sha256 or named, dict)
        return opening

    def unmask(self, opening: Opening) -> None:
        """The store's round goes to where its sum is opened."""
        first = ("lille", "lyon", "nantes")
        roster = Roster(participants=(), first=first, c=1, t=3, k=2)
        survivors = wire.Survivors(context="0" * 64, sharers=first, size=4, roots={}, signatures={})
        place = (RUN, opening.round, 1)
        self.store.advance(*place, Phase.SHARES, 4e9, roster=roster)
        self.store.advance(*place, Phase.MASKED, 4e9)
        self.store.advance(*place, Phase.SURVIVORS, 4e9, survivors=survivors)
        self.store.advance(*place, Phase.UNMASK, 4e9)

    def total(self, opening: Opening) -> Sum:
        """The masked sum of three sites, each with weight 2 and an update of ones, as it would be loaded again."""
        codec = ring.Codec(self.manifest.segments(opening.kind, opening.parameters), 3)
        words = np.zeros(codec.size, np.uint32)
        for site in range(3):
            values = {s.name: np.zeros(s.size) for s in codec.segments if s.name != ring.CLIPPED}
            values |= {name: np.ones(5, np.float32) for name in ("update", "control") if name in values}
            if "weight" in values:
                values["weight"] = np.array([2.0])
            values["sites"] = np.array([1.0])
            values["rows"] = np.array([4.0])
            words += codec.encode(values, bytes([site]) * 32, factors={"update": 2.0})
        masks = [(bytes(32), 1)]
        masking.apply(words, masks)
        return Sum(words, masks, 3, federation.SITES, 12, lambda: {"commit": 0.5})

    def train(self, committer: Committer, opening: Opening) -> Run:
        committer.train(self.manifest, opening, self.store.run(RUN), self.total(opening))
        return self.store.run(RUN)


def sha256_of(text: bytes) -> str:
    import hashlib

    return hashlib.sha256(text).hexdigest()


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Hub]:
    def made(strategy: str) -> Hub:
        store = Store(f"sqlite:///{tmp_path / 'hub.sqlite'}")
        store.migrate()
        store.acquire()
        return Hub(tmp_path, store, strategy)

    return made


CUTS = [("store", "put_sealing"), ("artifacts", "put"), ("store", "commit_round")]


@pytest.mark.parametrize(("part", "verb"), CUTS)
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedyogi"])
def test_cut_off_after_any_write_a_commit_ends_in_the_same_bytes(
    make: Callable[[str], Hub], strategy: str, part: str, verb: str
) -> None:
    hub = make(strategy)
    hub.init(hub.committer())
    opening = hub.opening(1, Kind.TRAIN)
    hub.unmask(opening)
    cut = Cut(getattr(hub, part), verb)
    with pytest.raises(Unavailable):
        hub.train(hub.committer(**{part: cut}), opening)
    kept = {kind: hub.store.sealing(RUN, 1, kind) for kind in ("model", "optimiser")}
    names = set(hub.artifacts.names())
    done = hub.train(hub.committer(), opening)
    assert done.version == 1
    assert done.model is not None
    assert names <= set(hub.artifacts.names())
    if verb != "put_sealing" and kept["model"] is not None:
        assert done.model.plaintext in kept["model"].header.decode()
    made = {item.ref.name for item in hub.store.artifacts(RUN)}
    assert made == set(hub.artifacts.names())  # nothing was written twice under two names
    assert hub.train(hub.committer(), opening).model == done.model  # and once more, as after a lost answer
    assert hub.store.verify_chain(RUN) > 3
    hub.store.close()


def test_the_next_model_is_the_strategys_from_memory_and_from_the_store_alike(make: Callable[[str], Hub]) -> None:
    hub = make("fedyogi")
    keeping = hub.committer()
    hub.init(keeping)
    for number in (1, 2):
        opening = hub.opening(number, Kind.TRAIN)
        hub.unmask(opening)
        # Round 1 from what round 0 left in memory, round 2 by a hub that was started again.
        done = hub.train(keeping if number == 1 else hub.committer(), opening)
    assert done.model is not None
    assert done.optimiser is not None
    with hub.artifacts.open(done.model.name) as source:
        sealed = source.read()
    expected = sealing.Expected(
        hub.manifest.digest(), RUN, 2, "model", sealing.UNKNOWN, done.model.plaintext, sealing.UNKNOWN
    )
    plain = bytes(sealing.open_bytes(sealed, IDENTITY, signer=SIGNER.public, expected=expected))
    model = np.frombuffer(plain[8 + tensors.header_length(plain[:8]) :], "<f4")
    x, m, v = np.arange(5.0), np.zeros(5), np.zeros(5)
    for _ in range(2):  # Reddi et al. 2021, Algorithm 2, with the update's mean of one
        m = 0.9 * m + 0.1
        v = v - (1 - 0.999) * np.sign(v - 1.0)
        x = x + m / (np.sqrt(v) + 1e-8)
    assert np.allclose(model, x, rtol=1e-5)
    hub.store.close()


def test_first_weights_by_another_site_or_other_ones_are_refused(make: Callable[[str], Hub]) -> None:
    hub = make("fedavg")
    with pytest.raises(Untrusted):
        hub.init(hub.committer(), signer=SIGNER.public)
    hub.store.fail_attempt(RUN, 0, 1, "wrong signer")
    assert hub.store.run(RUN).version == -1
    assert list(hub.artifacts.names()) == []
    hub.store.close()


def test_neither_sum_nor_model_is_ever_on_disk_in_the_clear(make: Callable[[str], Hub]) -> None:
    hub = make("scaffold")
    hub.init(hub.committer())
    opening = hub.opening(1, Kind.TRAIN)
    hub.unmask(opening)
    hub.train(hub.committer(), opening)
    total = hub.total(opening)
    masking.remove(total.words, total.masks)
    known = {
        "the opened sum": total.words[:5].tobytes(),
        "the first model": np.arange(5, dtype="<f4").tobytes(),
        "the next model": np.arange(1, 6, dtype="<f4").tobytes(),
        "the sum's hash is no secret": blake3.blake3(total.words.data.cast("B")).digest(),
    }
    for folder, _, names in os.walk(hub.folder):
        for name in names:
            content = Path(folder, name).read_bytes()
            for what, needle in known.items():
                for form in (needle, needle.hex().encode()):
                    assert form not in content or "no secret" in what, (name, what)
    hub.store.close()


def test_a_run_without_its_model_says_so(make: Callable[[str], Hub]) -> None:
    hub = make("fedavg")
    with pytest.raises((Invalid, Untrusted)):
        hub.init(hub.committer(), sha256="0" * 64)
    hub.store.close()
