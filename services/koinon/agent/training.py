"""Local work of a round: fetch and open the model, ask the trainer, make the plain update durable. Nothing twice.

An update is made of a round's model and parameters (its `basis`); once it is in the journal every attempt of the round
masks that one. SCAFFOLD's control variate c_i changes only when a later round starts from a model that this site's
update is in (Karimireddy et al. 2020, algorithm 1; option II's difference comes from the trainer).
"""

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from koinon.agent import answers
from koinon.agent.marker import sync_folder
from koinon.agent.policy import Refusal
from koinon.agent.projects import Project
from koinon.agent.records import Control, Update
from koinon.agent.site import Site, sha256_of
from koinon.agent.trainer import Trainer
from koinon.artifacts import sealing
from koinon.artifacts.sealing import Expected
from koinon.domain import canonical, layout, tensors
from koinon.domain.errors import Invalid, Untrusted
from koinon.domain.layout import Layout
from koinon.domain.manifest import CONTROLLED
from koinon.domain.run import Kind
from koinon.domain.wire import ArtifactRef, Opening, Task
from koinon.protection.site import SiteAttempt

_BLOCK = 2**20
_IN_MEMORY = 16 * 2**20  # a model up to so many bytes is opened in memory
_RESERVE = 64 * 2**20  # bytes of disk that stay free for journal and log


def first_weights(site: Site, project: Project, trainer: Trainer, opening: Opening) -> tuple[Path, str]:
    """Round 0: the file of first weights as this site's trainer builds them, and its SHA-256."""
    target = site.work(opening.run) / "init.safetensors"
    if target.exists():
        return target, sha256_of(target)
    draft = target.with_suffix(".new")
    body = {"run": opening.run, "seed": opening.parameters["seed"], "parameters": opening.parameters}
    shapes = tensors.named(project.manifest.layout(opening.parameters), "model")
    _require_room(site, 8 * layout.size(shapes))
    made = trainer.init(body, shapes, draft)
    os.replace(draft, target)
    sync_folder(target.parent)
    return target, made.sha256


def update(
    site: Site, project: Project, trainer: Trainer, task: Task, *, until: float
) -> tuple[Update, dict[str, float]]:
    """The round's plain update, from the journal or trained now; and seconds by part, empty if it was there.

    A new one is durable as a file; it counts when the journal names it, together with the attempt that it joins.
    """
    opening = task.opening
    basis = canonical.digest({"model": opening.model, "parameters": opening.parameters, "kind": opening.kind})
    known = site.journal.update(opening.run, opening.round)
    if known is not None:
        if known.basis != basis:
            raise Refusal("changed_run", f"Round {opening.round} was trained from another model before.")
        return known, {}
    if task.model is None or task.model.plaintext != opening.model:
        raise Untrusted("The task does not name the model of its opening.", where="task.model")
    shapes = project.manifest.layout(opening.parameters)
    prefixes = ("model", "control") if opening.parameters["strategy"] in CONTROLLED else ("model",)
    _require_room(site, 4 * 8 * layout.size(shapes))
    began = time.monotonic()
    model = _fetch(site, project, opening, task.model, tensors.named(shapes, *prefixes), until)
    fetched = time.monotonic()
    try:
        if opening.kind is Kind.EVALUATE:
            made, steps = _evaluate(site, project, trainer, opening, model, shapes, prefixes, basis), 0.0
        else:
            made, steps = _fit(site, project, trainer, task, model, shapes, prefixes, basis)
    finally:
        model.unlink(missing_ok=True)
    trained = time.monotonic() - fetched
    # NB: `steps` is research code's own word. Bounded and coarse, it says no more than how long it made others wait.
    return made, {"fetch": fetched - began, "train": trained, "steps": round(min(steps, trained), 2)}


def _fetch(site: Site, project: Project, opening: Opening, ref: ArtifactRef, shapes: Layout, until: float) -> Path:
    """The opened model as a file, every byte of it verified, of exactly the layout. Raises Untrusted, Invalid."""
    folder, size = site.work(opening.run), tensors.file_bytes(shapes)
    sealed, target = folder / f"{ref.name}.sealed", folder / f"model-{opening.round}.safetensors"
    site.hub.download(f"/v1/sites/me/artifacts/{ref.name}", sealed, ref.name, limit=_sealed_bytes(size), until=until)
    signer = project.manifest.hub.signing
    with sealed.open("rb") as stream:
        header = sealing.read_header(stream, signer=signer)
    identity = next((i for r, i in site.identities.items() if r in header.stanzas), None)
    if identity is None:
        raise Untrusted("The model is not sealed to this site.", where="model")
    assert opening.base is not None
    expected = Expected(
        manifest=opening.manifest,
        run=opening.run,
        round=opening.base,
        kind="model",
        parent=_parent(site, opening),
        plaintext=ref.plaintext,
        length=size,
    )
    if size <= _IN_MEMORY:  # NB: not made durable, since it can be fetched again
        target.write_bytes(sealing.open_bytes(sealed.read_bytes(), identity, signer=signer, expected=expected))
    else:
        sealing.open_file(sealed, identity, target, signer=signer, expected=expected)
    sealed.unlink()
    with target.open("rb") as file:
        _skip_header(file, shapes)
    return target


def _sealed_bytes(size: int) -> int:
    """What `size` bytes weigh sealed, at most: the hub's own word for it is not needed."""
    return size + sealing.TAG * (size // sealing.CHUNK + 1) + sealing.MAX_HEADER + len(sealing.MAGIC) + 4


def _parent(site: Site, opening: Opening) -> str | sealing.Unknown | None:
    """The model that the present one was made from: known if this site took part in that round."""
    if opening.base == 0:
        return None
    before = last_attempt(site, opening.run)
    known = before is not None and before.opening.round == opening.base
    return before.opening.model if known and before else sealing.UNKNOWN


def last_attempt(site: Site, run: str) -> SiteAttempt | None:
    """The run's journal entry."""
    text = site.journal.state(run)
    return None if text is None else SiteAttempt.parse(text)


def _skip_header(file: BinaryIO, shapes: Layout) -> None:
    first = file.read(8)
    tensors.check_header(file.read(tensors.header_length(first)), shapes)


def _request(site: Site, opening: Opening) -> dict[str, str]:
    body = {
        "project": opening.manifest,
        "run": opening.run,
        "round": opening.round,
        "seed": opening.parameters["seed"],
        "site": site.name,
        "kind": opening.kind,
        "parameters": opening.parameters,
    }
    return {"request": json.dumps(body)}


def _evaluate(site: Site, project: Project, trainer: Trainer, opening: Opening, model: Path, shapes: Layout,
              prefixes: tuple[str, ...], basis: str) -> Update:  # fmt: skip
    head = tensors.header(tensors.named(shapes, "model"), _request(site, opening))
    count = 4 * layout.size(shapes)

    def body() -> Iterator[bytes]:
        yield head
        yield from _values(model, tensors.named(shapes, *prefixes), count)

    report = trainer.evaluate(body, len(head) + count)
    return Update(basis, {}, _told(project, report)[0])


def _fit(site: Site, project: Project, trainer: Trainer, task: Task, model: Path, shapes: Layout,
         prefixes: tuple[str, ...], basis: str) -> tuple[Update, float]:  # fmt: skip
    """The update, and the seconds that the local steps alone took."""
    opening, controlled = task.opening, "control" in prefixes
    local = _settle_control(site, opening, task.counted) if controlled else None
    sent = tensors.named(shapes, *prefixes, *(("local",) if controlled else ()))
    head = tensors.header(sent, _request(site, opening))
    count = 4 * layout.size(shapes)

    def body() -> Iterator[bytes]:
        yield head
        yield from _values(model, tensors.named(shapes, *prefixes), count * len(prefixes))
        if controlled:
            yield from _values(local, (), count) if local else _zeros(count)

    target = site.work(opening.run) / update_file(opening.round)
    wanted = tensors.named(shapes, "update", *(("control",) if controlled else ()))
    received = trainer.fit(body, len(head) + 4 * layout.size(sent), wanted, target)
    told, steps = _told(project, answers.parse_json(received.metadata.get("report", "")))
    if controlled:
        _pend_control(site, opening, target, local, layout.size(shapes))
    sync_folder(target.parent)
    return Update(basis, {target.name: received.sha256}, told), steps


def _told(project: Project, report: Any) -> tuple[dict[str, Any], float]:
    """What of a report goes into the masked vector: metrics' words and weight; and the seconds of the local steps."""
    manifest = project.manifest
    read, words = answers.read_report(report, manifest.metrics)
    return {"words": words, "weight": min(read.rows, manifest.weight_bound()), "rows": read.rows}, read.seconds


def update_file(number: int) -> str:
    return f"update-{number}.f32"


# SCAFFOLD's control variates


def _settle_control(site: Site, opening: Opening, counted: int | None) -> Path | None:
    """c_i for this round: the pending one counts if its round is `counted`, the newest in whose sum this site is.

    Only the hub can know: a slow site may be in a sum without having seen the survivors. A hub that lies about it
    spoils the training, which it could anyway. None stands for zeros. An unused one is removed.
    """
    control, folder = site.journal.control(opening.run), site.work(opening.run)
    if control.pending is not None and control.pending < opening.round:
        survived = control.pending == counted
        settled = Control(file=control.pending_file if survived else control.file)
        site.journal.put_control(opening.run, settled)
        unused = control.file if survived else control.pending_file
        if unused is not None:
            (folder / unused).unlink(missing_ok=True)
        control = settled
    return folder / control.file if control.file else None


def _pend_control(site: Site, opening: Opening, update: Path, local: Path | None, size: int) -> None:
    """Writes c_i + Δc_i beside c_i; the journal names it before the update counts."""
    folder = site.work(opening.run)
    target = folder / f"control-{opening.round}.f32"
    with target.open("wb") as out:
        for start in range(0, size, _BLOCK):
            count = min(_BLOCK, size - start)
            change = np.fromfile(update, "<f4", count, offset=4 * (size + start))
            out.write((change + np.fromfile(local, "<f4", count, offset=4 * start) if local else change).tobytes())
        out.flush()
        os.fsync(out.fileno())
    control = site.journal.control(opening.run)
    site.journal.put_control(opening.run, Control(control.file, opening.round, target.name))


# files


def _values(path: Path | None, shapes: Layout, count: int) -> Iterator[bytes]:
    """The first `count` bytes of a file's values; without shapes it has no header."""
    assert path is not None
    with path.open("rb") as file:
        if shapes:
            _skip_header(file, shapes)
        while count:
            block = file.read(min(_BLOCK, count))
            if not block:
                raise Invalid("The file of tensors is too short.", where=path.name)
            count -= len(block)
            yield block


def _zeros(count: int) -> Iterable[bytes]:
    for start in range(0, count, _BLOCK):
        yield bytes(min(_BLOCK, count - start))


def _require_room(site: Site, size: int) -> None:
    free = shutil.disk_usage(site.folder.work).free
    if free < size + _RESERVE:
        raise Refusal("disk_full", f"{free} bytes of disk are free, {size + _RESERVE} are needed.", todo="Make room.")
