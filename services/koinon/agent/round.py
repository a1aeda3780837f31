"""A round at this site, step by durable step: each input changes the journal first, and then its message leaves.

Every step may be repeated after SIGKILL at any point: the journal holds the messages as they were sent, masked bytes
are a function of the attempt's secrets and of one update, and an upload goes on where it ended.
"""

import os
import secrets
from pathlib import Path

import blake3
import numpy as np

from koinon.agent import training
from koinon.agent.marker import sync_folder
from koinon.agent.policy import Refusal, check_clock, check_opening
from koinon.agent.projects import Project
from koinon.agent.records import Update
from koinon.agent.site import Site, remove_run, sha256_of
from koinon.agent.trainer import Trainer
from koinon.artifacts import sealing
from koinon.domain.errors import Conflict, Untrusted
from koinon.domain.keys import Signed
from koinon.domain.run import Kind, Phase
from koinon.domain.wire import InitVote, Opening, Task
from koinon.protection import ballots, masking, ring
from koinon.protection import site as protocol
from koinon.protection.site import SiteAttempt

_BLOCK = 2**20


def admit(site: Site, task: Task) -> Project:
    """The task's project, if grant, manifest, limits and journal allow the attempt here and now. Raises Refusal."""
    opening = task.opening
    if not site.book.has_manifest(opening.manifest):
        text = site.hub.manifest(opening.manifest, until=task.deadline)
        site.book.keep_manifest(opening.manifest, text)
    check_clock(site.hub.offset)
    project = site.book.project(opening.manifest, site.clock())
    known = site.journal.known(opening.run)
    if known is None or known.attempts.get((opening.round, opening.attempt)) != opening.digest():
        counts = site.journal.counts(opening.manifest, opening.run, opening.round)
        floor = site.journal.floor(opening.run)
        check_opening(project.manifest, project.grant, opening, known=known, counts=counts, floor=floor)
    return project


def require_grant(site: Site, opening: Opening) -> None:
    """Raises Refusal if the grant ended meanwhile."""
    site.book.project(opening.manifest, site.clock())


def build(site: Site, project: Project, trainer: Trainer, task: Task) -> None:
    """Round 0: builds the first weights, votes for them, and hands them in if asked to and others built the same."""
    opening = task.opening
    path, sha256 = training.first_weights(site, project, trainer, opening)
    if site.journal.message(opening, Phase.INIT) is None:
        vote = InitVote(opening=opening.digest(), site=site.name, sha256=sha256).signed(site.signer)
        site.journal.join(opening, None, Phase.INIT, vote.encode())
    if task.upload:
        least, _ = project.minimum
        ballots.require(
            task.ballots, opening, sha256,
            site=site.name, roots=project.roots, min_sites=least, now=site.clock(),
        )  # fmt: skip
        require_grant(site, opening)
        site.hub.upload(opening, _sealed_weights(site, project, opening, path, sha256), until=task.deadline)
    else:
        _send(site, task)


def _sealed_weights(site: Site, project: Project, opening: Opening, plain: Path, sha256: str) -> Path:
    """The first weights sealed to the hub, on disk before a byte of them leaves: a retry sends the same ones."""
    target = plain.with_name("init.sealed")
    if not target.exists():
        prepared = sealing.prepare(
            manifest=opening.manifest,
            run=opening.run,
            round=0,
            kind="init",
            parent=None,
            plaintext=sha256,
            length=plain.stat().st_size,
            recipients=[project.manifest.hub.recipient],
            content_key=sealing.new_content_key(),
            signer=site.signer,
        )
        sealing.seal(plain, prepared, target, signer=site.signer.public)
        sync_folder(target.parent)
    return target


def train(site: Site, project: Project, trainer: Trainer, task: Task) -> None:
    """KEYS: trains (or finds the update in the journal), joins the attempt, sends its keys."""
    opening, seconds = task.opening, ""
    if site.journal.message(opening, Phase.KEYS) is None:
        update, took = training.update(site, project, trainer, task, until=task.deadline)
        require_grant(site, opening)
        seconds = ",".join(f"{name}:{value:.3f}" for name, value in took.items())
        previous = training.last_attempt(site, opening.run)
        state = protocol.join(previous, opening, site.certificate, secrets.token_bytes(32))
        message = state.keys_message(site.signer)
        site.journal.join(
            opening,
            _text(state),
            Phase.KEYS,
            message.encode(),
            update=update if took else None,
            erase=previous is not None and previous.entropy is not None,
        )
    _send(site, task, seconds)
    _remove_older(site, opening)


def share(site: Site, project: Project, task: Task) -> None:
    """SHARES: checks the roster, sends this site's shares to each peer."""
    if site.journal.message(task.opening, Phase.SHARES) is None:
        if task.roster is None:
            raise Untrusted("The task has no roster.", where="task.roster")
        state = _state(site, task.opening).accept_roster(task.roster, roots=project.roots, now=site.clock())
        least, others = project.minimum
        vouched = len(project.vouched & set(task.roster.sites))
        if len(task.roster.sites) < least or vouched < others:
            raise Refusal("too_few_sites", f"{len(task.roster.sites)} sites are left, {vouched} of them vouched for.")
        _step(site, task, state, state.shares_message(site.signer))
    _send(site, task)


def mask(site: Site, project: Project, task: Task) -> None:
    """MASKED: makes the masked bytes over the journal's update, uploads them, says which they are.

    The journal fixes update, peers and root before a byte leaves. The bytes follow from these: if a crash took them
    they are made again, and are the same or are not sent.
    """
    opening = task.opening
    path = site.work(opening.run) / masked_file(opening)
    state, fresh = _state(site, opening), site.journal.message(opening, Phase.MASKED) is None
    if fresh:
        update = _update(site, opening)
        if task.inbox is None:
            raise Untrusted("The task has no inbox.", where="task.inbox")
        state = state.accept_inbox(task.inbox).bind(update.digest())
        state = state.record_upload(*_write_masked(site, project, state, update, path))
        _step(site, task, state, state.masked_message(site.signer))
    else:
        assert state.masked is not None
        if not path.exists() or _root(path) != state.masked.root:
            state = state.bind((update := _update(site, opening)).digest())
            state.record_upload(*_write_masked(site, project, state, update, path))
    require_grant(site, opening)
    site.hub.upload(opening, path, until=task.deadline, fresh=fresh)
    _send(site, task)


def masked_file(opening: Opening) -> str:
    return f"masked-{opening.round}-{opening.attempt}.u32"


def _update(site: Site, opening: Opening) -> Update:
    update = site.journal.update(opening.run, opening.round)
    if update is None:
        raise Conflict("There is no update of this round to mask.")
    return update


def vote(site: Site, project: Project, task: Task) -> None:
    """SURVIVORS: signs the one survivor set, if the crowd is large enough for this site."""
    if site.journal.message(task.opening, Phase.SURVIVORS) is None:
        state = _accept_survivors(project, task, _state(site, task.opening))
        _step(site, task, state, state.vote_message(site.signer))
    _send(site, task)


def release(site: Site, project: Project, task: Task) -> None:
    """UNMASK: releases this site's shares against a quorum of votes, once a round, the latch in two places first."""
    opening = task.opening
    if site.journal.message(opening, Phase.UNMASK) is None:
        state = _state(site, opening)
        if state.survivors is None or task.survivors is not None:
            state = _accept_survivors(project, task, state)
        state = state.accept_votes(task.votes)
        message = state.release_message(site.signer)
        site.journal.step(opening, _text(state), Phase.UNMASK, message.encode(), latch=True)
    _send(site, task)
    site.journal.tidy()


def finish(site: Site, run: str) -> None:
    """The run is over: no secret of it remains, nor a file."""
    before = training.last_attempt(site, run)
    site.journal.erase(run, None if before is None else _text(before.end()))
    remove_run(site.folder, run)


def _accept_survivors(project: Project, task: Task, state: SiteAttempt) -> SiteAttempt:
    if task.survivors is None:
        raise Untrusted("The task has no survivors.", where="task.survivors")
    least, others = project.minimum
    return state.accept_survivors(task.survivors, vouched=project.vouched, min_sites=least, min_others=others)


def _state(site: Site, opening: Opening) -> SiteAttempt:
    """The journal's state of this attempt. Raises Conflict if the site has not joined it, or has left it."""
    state = training.last_attempt(site, opening.run)
    if state is None or state.opening != opening:
        raise Conflict(f"{site.name} has not joined attempt {opening.attempt} of round {opening.round}.")
    return state


def _text(state: SiteAttempt) -> str:
    return state.encode().decode()


def _step(site: Site, task: Task, state: SiteAttempt, message: Signed) -> None:
    site.journal.step(task.opening, _text(state), task.phase, message.encode())


def _send(site: Site, task: Task, seconds: str = "") -> None:
    body = site.journal.message(task.opening, task.phase)
    if body is None:
        raise Conflict("A newer attempt has taken the place of this one.")
    require_grant(site, task.opening)
    result = site.hub.send(task.phase, task.opening, body, until=task.deadline, seconds=seconds)
    opening = task.opening
    site.log.event(
        "sent", run=opening.run, round=opening.round, attempt=opening.attempt, phase=task.phase, result=result
    )


def _write_masked(site: Site, project: Project, state: SiteAttempt, update: Update, path: Path) -> tuple[int, str]:
    """Clips, quantises and masks the update into `path`. Size in bytes and BLAKE3 root."""
    opening, manifest = state.opening, project.manifest
    assert state.roster is not None
    codec = ring.Codec(manifest.segments(opening.kind, opening.parameters), state.roster.n)
    values, factors = _vector(site, opening, update, {segment.name: segment.size for segment in codec.segments})
    seed = ring.rounding_seed(int(opening.parameters["seed"]), opening.round, site.name)
    draft = path.with_name(f".{path.name}.new")
    words = np.memmap(draft, np.uint32, "w+", shape=(codec.size,))
    codec.encode(values, seed, factors=factors, out=words)
    masking.apply(words, state.masks())
    del words
    os.replace(draft, path)
    return 4 * codec.size, _root(path)


def _root(path: Path) -> str:
    """BLAKE3 of a file, in hex."""
    root, block = blake3.blake3(), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            root.update(block[:count])
    return root.hexdigest()


def _vector(
    site: Site, opening: Opening, update: Update, sizes: dict[str, int]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The values of each segment, and what they are multiplied with before they are clipped."""
    values = {name: np.asarray(words, np.float64) for name, words in update.report["words"].items()}
    if opening.kind is Kind.EVALUATE:
        return values, {}
    (name, sha256), = update.files.items()  # fmt: skip
    path = site.work(opening.run) / name
    if not path.exists() or sha256_of(path) != sha256:
        raise Untrusted("The plain update on disk is not the one in the journal.", where=name)
    flat = np.memmap(path, "<f4", "r")
    values["update"] = flat[: sizes["update"]]
    if "control" in sizes:
        values["control"] = flat[sizes["update"] :]
    weight = int(update.report["weight"])
    values["weight"] = np.array([weight], np.float64)
    return values, dict.fromkeys({"update", "control"} & values.keys(), float(weight))


def _remove_older(site: Site, opening: Opening) -> None:
    """Files of earlier rounds and attempts, which will not be asked for again. Control variates stay."""
    for path in site.work(opening.run).iterdir():
        kind, _, rest = path.name.partition("-")
        number, _, attempt = rest.partition(".")[0].partition("-")
        if kind not in ("update", "masked", "model") or not number.isdigit():
            continue
        if (int(number), int(attempt or opening.attempt)) < (opening.round, opening.attempt):
            path.unlink(missing_ok=True)
