"""From the folded sum to the next model: unmask, decode, optimise, seal, store, and one transaction.

The opened sum exists in memory only. Every step may be repeated after a crash: the content keys are in SQL before
the first write, artifacts are named by their hash, and the transaction does nothing the second time.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import blake3
import numpy as np

from koinon.aggregation import strategies
from koinon.aggregation.fold import Words
from koinon.aggregation.strategies.base import State, Sums, Vector
from koinon.artifacts import sealing
from koinon.artifacts.keyfiles import Identity
from koinon.artifacts.sealing import Expected, Kind, Sealed
from koinon.artifacts.stores import ArtifactStore
from koinon.domain import layout, metrics, tensors
from koinon.domain.errors import Invalid, NotFound, Untrusted
from koinon.domain.keys import SigningKey
from koinon.domain.layout import Layout
from koinon.domain.manifest import Manifest
from koinon.domain.run import RoundState
from koinon.domain.wire import ArtifactRef, Opening
from koinon.protection import masking
from koinon.protection.masking import Mask
from koinon.protection.ring import Codec
from koinon.store.records import Round, Run
from koinon.store.store import Store

KEPT_BYTES = 64 * 2**20  # a model up to this size stays in memory from one round to the next


@dataclass(frozen=True)
class Keys:
    """The hub's: what it signs artifacts with, and what it opens its own with."""

    signing: SigningKey
    identity: Identity


@dataclass(frozen=True)
class Sum:
    """The folded sum of an attempt, still masked, whose masks these are, and what is told with its commit."""

    words: Words
    masks: Sequence[Mask]
    n: int  # sites of the round's first attempt
    survivors: tuple[str, ...]
    bytes: int
    seconds: Callable[[], Mapping[str, float]]


@dataclass
class _Memory:
    """A model and its optimiser's state as flat float32 vectors; `plaintext` names the model file they make."""

    plaintext: str
    model: Vector
    state: State


class Committer:
    """Commits rounds of a hub. `work` is a folder for sealed files on their way to the artifact store."""

    def __init__(self, store: Store, artifacts: ArtifactStore, keys: Keys, work: Path) -> None:
        self._store, self._artifacts, self._keys, self._work = store, artifacts, keys, work
        self._kept: dict[str, _Memory] = {}
        work.mkdir(parents=True, exist_ok=True)
        for left in work.iterdir():
            left.unlink()

    def forget(self, run: str) -> None:
        self._kept.pop(run, None)

    def weights(self, manifest: Manifest, opening: Opening, sealed: Path, signer: str, sha256: str,
                told: Callable[[], Mapping[str, float]]) -> Round:  # fmt: skip
        """Commits round 0: the first weights in the file `sealed`, by a site with the signing key `signer`.

        Raises Untrusted or Invalid unless they are the plaintext `sha256` that enough sites named, in the layout.
        """
        if (done := self._committed(opening)) is not None:
            return done
        shapes = manifest.layout(opening.parameters)
        expected = Expected(opening.manifest, opening.run, 0, "init", None, sha256, sealing.UNKNOWN)
        plain = sealing.open_bytes(sealed.read_bytes(), self._keys.identity, signer=signer, expected=expected)
        model = _vector(io.BytesIO(plain), tensors.named(shapes, "model"))
        if not np.isfinite(model).all():
            raise Invalid("The first weights are not all finite.", where="init")
        strategy = strategies.get(str(opening.parameters["strategy"]))
        state = strategies.initial(strategy, model.size)
        refs = self._seal_all(manifest, opening, model, state)
        done = self._store.commit_round(
            opening.run, 0, model=refs["model"], optimiser=refs.get("optimiser"), result=None, version=0, metrics={},
            seconds=told(), bytes=sealed.stat().st_size, survivors=(),
            data=self._signed({"next": refs["model"].plaintext}),
        )  # fmt: skip
        self._keep(opening.run, refs["model"].plaintext, model, state)
        return done

    def train(self, manifest: Manifest, opening: Opening, run: Run, total: Sum) -> Round:
        """Commits a training round: the next model, its optimiser's state, and how the last model scored."""
        if (done := self._committed(opening)) is not None:
            return done
        strategy = strategies.get(str(opening.parameters["strategy"]))
        opened, aggregate = self._open(manifest, opening, total)
        memory = self._load(manifest, opening, run)
        self._kept.pop(run.id, None)  # its arrays are changed in place below
        sums = Sums(
            update=opened["update"],
            weight=float(opened["weight"][0]),
            sites=len(total.survivors),
            members=len(manifest.members),
            control=opened.get("control"),
        )
        model, state = strategy.step(memory.model, sums, memory.state, opening.parameters)
        refs = self._seal_all(manifest, opening, model, state)
        told = {
            "model": opening.model,
            "aggregate": aggregate,
            "optimiser": run.optimiser.plaintext if run.optimiser else None,
            "next": refs["model"].plaintext,
            "clipped": int(opened["clipped"][0]),
        }
        done = self._store.commit_round(
            run.id, opening.round, model=refs["model"], optimiser=refs.get("optimiser"), result=None,
            version=run.version + 1, metrics=_scores(manifest, opened), seconds=total.seconds(), bytes=total.bytes,
            survivors=total.survivors, data=self._signed(told),
        )  # fmt: skip
        self._keep(run.id, refs["model"].plaintext, model, state)
        return done

    def evaluate(self, manifest: Manifest, opening: Opening, run: Run, total: Sum) -> Round:
        """Commits the last round: how the final model scored, and the model sealed to the manifest's recipients."""
        if (done := self._committed(opening)) is not None:
            return done
        opened, aggregate = self._open(manifest, opening, total)
        memory = self._load(manifest, opening, run)
        shapes = tensors.named(manifest.layout(opening.parameters), "model")
        readers = [recipient.recipient for recipient in manifest.recipients]
        result = self._seal(opening, "result", shapes, [memory.model], readers)
        told = {"model": opening.model, "aggregate": aggregate, "next": opening.model}
        done = self._store.commit_round(
            run.id, opening.round, model=None, optimiser=None, result=result, version=run.version,
            metrics=_scores(manifest, opened), seconds=total.seconds(), bytes=total.bytes, survivors=total.survivors,
            data=self._signed(told),
        )  # fmt: skip
        self.forget(run.id)
        return done

    def _committed(self, opening: Opening) -> Round | None:
        """The round if it is committed already, and only the answer was lost."""
        found = self._store.round(opening.run, opening.round)
        return found if found.state is RoundState.COMMITTED else None

    def _open(self, manifest: Manifest, opening: Opening, total: Sum) -> tuple[dict[str, np.ndarray], str]:
        """The opened sums by segment, and the BLAKE3 of the opened words."""
        masking.remove(total.words, total.masks)
        aggregate = blake3.blake3(total.words.data.cast("B")).hexdigest()
        codec = Codec(manifest.segments(opening.kind, opening.parameters), total.n)
        return codec.decode(total.words), aggregate

    def _load(self, manifest: Manifest, opening: Opening, run: Run) -> _Memory:
        """The model that the round started from, with its optimiser's state, from memory or the artifact store."""
        kept = self._kept.get(run.id)
        if kept is not None and kept.plaintext == opening.model:
            return kept
        if run.model is None or run.model_round is None or run.model.plaintext != opening.model:
            raise NotFound("The model that the round started from is not here.", where=f"run {run.id}")
        strategy = strategies.get(str(opening.parameters["strategy"]))
        shapes = manifest.layout(opening.parameters)
        size = layout.size(shapes)
        file = tensors.named(shapes, "model", *strategy.shared)
        vector = self._read(opening, run.model, run.model_round, "model", file)
        state = {name: vector[(i + 1) * size : (i + 2) * size] for i, name in enumerate(strategy.shared)}
        if strategy.kept:
            if run.optimiser is None:
                raise NotFound("The optimiser's state is not here.", where=f"run {run.id}")
            file = tensors.named(shapes, *strategy.kept)
            moments = self._read(opening, run.optimiser, run.model_round, "optimiser", file)
            state |= {name: moments[i * size : (i + 1) * size] for i, name in enumerate(strategy.kept)}
        return _Memory(run.model.plaintext, vector[:size], state)

    def _read(self, opening: Opening, ref: ArtifactRef, round: int, kind: Kind, shapes: Layout) -> Vector:
        with self._artifacts.open(ref.name) as source:
            sealed = source.read()
        # The run's row names the plaintext, which pins the rest of the chain; only the parent is not kept there.
        expected = Expected(
            opening.manifest, opening.run, round, kind, sealing.UNKNOWN, ref.plaintext, tensors.file_bytes(shapes)
        )
        signer = self._keys.signing.public
        plain = sealing.open_bytes(sealed, self._keys.identity, signer=signer, expected=expected)
        return _vector(io.BytesIO(plain), shapes)

    def _seal_all(self, manifest: Manifest, opening: Opening, model: Vector, state: State) -> dict[str, ArtifactRef]:
        """The model to hub and sites, the rest of the optimiser's state to the hub alone."""
        strategy = strategies.get(str(opening.parameters["strategy"]))
        shapes = manifest.layout(opening.parameters)
        own = self._keys.identity.recipient
        sites = [row.certificate.recipient for row in self._store.sites() if manifest.root_of(row.name) == row.root]
        shared = [state[name] for name in strategy.shared]
        file = tensors.named(shapes, "model", *strategy.shared)
        refs = {"model": self._seal(opening, "model", file, [model, *shared], [own, *sites])}
        if strategy.kept:
            kept = [state[name] for name in strategy.kept]
            refs["optimiser"] = self._seal(opening, "optimiser", tensors.named(shapes, *strategy.kept), kept, [own])
        return refs

    def _seal(
        self, opening: Opening, kind: Kind, shapes: Layout, vectors: Sequence[Vector], recipients: Sequence[str]
    ) -> ArtifactRef:
        header = tensors.header(shapes)
        buffers: list[bytes | memoryview] = [header]
        buffers += [np.ascontiguousarray(vector, "<f4").data.cast("B") for vector in vectors]
        plain = hashlib.sha256()
        for buffer in buffers:
            plain.update(buffer)
        signer = self._keys.signing
        stored = self._store.sealing(opening.run, opening.round, kind)
        if stored is None:
            prepared = sealing.prepare(
                manifest=opening.manifest, run=opening.run, round=opening.round, kind=kind, parent=opening.model,
                plaintext=plain.hexdigest(), length=sum(len(buffer) for buffer in buffers), recipients=recipients,
                content_key=sealing.new_content_key(), signer=signer,
            )  # fmt: skip
            wrapped = sealing.wrap_key(prepared, self._keys.identity.recipient)
            stored = self._store.put_sealing(opening.run, opening.round, kind, prepared.header.encode(), wrapped)
        prepared = sealing.restore(stored.header, stored.wrapped, self._keys.identity, signer=signer.public)
        if prepared.header.plaintext != plain.hexdigest():
            raise Untrusted(f"Round {opening.round} already sealed another {kind}.", where=f"run {opening.run}")
        path = self._work / f"{opening.run}.{opening.round}.{kind}"
        try:
            sealed: Sealed = sealing.seal(buffers, prepared, path, signer=signer.public)
            self._artifacts.put(sealed)
        finally:
            path.unlink(missing_ok=True)
        return ArtifactRef(name=sealed.name, bytes=sealed.size, plaintext=prepared.header.plaintext)

    def _signed(self, told: Mapping[str, object]) -> dict[str, object]:
        """What the hub vouches for: from this model, this sum and this optimiser state it made that next model, by
        element-wise + − × ÷ √ alone, so that whoever has the four can check it to the bit."""
        return {"commit": dict(told), "signature": self._keys.signing.sign("commit", dict(told))}

    def _keep(self, run: str, plaintext: str, model: Vector, state: State) -> None:
        if model.nbytes * (1 + len(state)) <= KEPT_BYTES:
            self._kept[run] = _Memory(plaintext, model, state)


def whole(path: Path, signer: str) -> bool:
    """Whether `path` holds all bytes of the sealed file that it begins with. Raises Untrusted or Invalid for none."""
    with path.open("rb") as file:
        header = sealing.read_header(file, signer=signer)
        return path.stat().st_size >= file.tell() + header.length + sealing.TAG * header.chunks()


def _vector(file: io.BytesIO, shapes: Layout) -> Vector:
    """The body of a tensor file of exactly `shapes`, writable. Raises Invalid."""
    first = file.read(8)
    tensors.check_header(file.read(tensors.header_length(first)), shapes)
    body = np.frombuffer(file.read(), "<f4")
    if body.size != layout.size(shapes):
        raise Invalid(f"The file holds {body.size} numbers, not {layout.size(shapes)}.", where="tensors")
    return body.astype(np.float32)


def _scores(manifest: Manifest, opened: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    return metrics.read(manifest.metrics, {name: opened[name].tolist() for name in opened if name not in _TENSORS})


_TENSORS = ("update", "control")
