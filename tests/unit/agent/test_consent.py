"""What a hospital's consent and its end do to the agent's files, whatever the hub asks."""

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from koinon.agent import projects, retention, setup
from koinon.agent import round as rounds
from koinon.agent.loop import Agent
from koinon.agent.policy import Refusal
from koinon.agent.records import Control, Update
from koinon.agent.site import Site
from koinon.agent.watch import Watch
from koinon.artifacts import keyfiles
from koinon.domain import canonical
from koinon.domain.errors import Refused, Unavailable
from koinon.domain.grant import Revocation
from koinon.domain.keys import Certificate, SigningKey
from koinon.domain.run import Kind, Phase
from koinon.domain.wire import Ballot, InitVote, Task
from koinon.protection import site as protocol
from tests.unit.agent import sites
from tests.unit.agent.openings import NOW, SITE, grant, opening
from tests.unit.domain import manifests

MANIFEST = manifests.build(hub={"signing": "ab" * 32, "recipient": keyfiles.new_identity().recipient})
NAME = MANIFEST.digest()


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    made = sites.make(tmp_path, clock)
    made.book.keep_manifest(NAME, MANIFEST.encode())
    (made.folder.grants / f"{NAME}.json").write_bytes(grant(MANIFEST).encode())
    made.book.reload()
    yield made
    made.close()


def take_part(site: Site, run: str = "run000") -> set[str]:
    """Joins a round and leaves all files of it; the names of those that are still needed."""
    task = opening(MANIFEST).model_copy(update={"run": run})
    state = protocol.join(None, task, site.certificate, b"s" * 32)
    kept = {"update-1.f32", "masked-1-1.u32", "control-0.f32", "control-1.f32"}
    site.journal.join(
        task, state.encode().decode(), Phase.KEYS, b"keys", update=Update("basis", {"update-1.f32": "ab"}, {})
    )
    site.journal.put_control(run, Control("control-0.f32", 1, "control-1.f32"))
    for name in {*kept, ".masked-1-1.u32.new", "masked-1-0.u32", "model-1.safetensors", "update-2.f32"}:
        (site.work(run) / name).write_bytes(b"plain")
    return kept


def revoke(site: Site, text: bytes | None = None) -> None:
    revocation = Revocation(manifest=NAME, site=SITE, time=int(NOW)).signed(manifests.ROOTS[SITE])
    (site.folder.revocations / f"{NAME}.json").write_bytes(revocation.encode() if text is None else text)


def test_the_sweep_leaves_what_the_journal_names(site: Site) -> None:
    kept = take_part(site)
    (site.work("run999") / "update-1.f32").write_bytes(b"plain")
    (site.folder.work / "stray").write_bytes(b"plain")
    retention.sweep(site)
    assert {path.name for path in site.folder.work.iterdir()} == {"run000"}
    assert {path.name for path in site.work("run000").iterdir()} == kept


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_the_end_of_a_grant_erases_plain_updates_and_secrets(site: Site, clock: Clock, how: str) -> None:
    take_part(site)
    take_part(site, "run111")
    retention.forget_ended(site, ())
    assert sorted(site.journal.unerased()) == ["run000", "run111"]
    if how == "revoked":
        revoke(site)
        site.book.reload()
    else:
        clock.now = NOW + 1_000
    retention.forget_ended(site, {"run111"})  # which a lane still holds
    assert site.journal.unerased() == ["run111"]
    assert {path.name for path in site.folder.work.iterdir()} == {"run111"}
    state = site.journal.state("run000")
    assert state is not None
    assert protocol.SiteAttempt.parse(state).entropy is None


def test_an_unreadable_revocation_blocks_its_project(site: Site) -> None:
    assert site.book.project(NAME, NOW).hash == NAME
    take_part(site)
    revoke(site, b"{")
    Agent(site).reload()
    with pytest.raises(Refusal) as caught:
        site.book.project(NAME, NOW)
    assert caught.value.code == "bad_revocation"
    assert site.journal.unerased() == ["run000"]  # nothing is erased for it


def test_only_manifests_of_this_site_are_kept_and_not_too_many(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [{"site": n, "root": r.public} for n, r in manifests.ROOTS.items() if n != SITE]
    foreign = manifests.build(members=others)
    with pytest.raises(Refusal) as caught:
        site.book.keep_manifest(foreign.digest(), foreign.encode())
    assert caught.value.code == "not_a_member"
    monkeypatch.setattr(projects, "MAX_MANIFESTS", 1)
    more = manifests.build(purpose="more")
    with pytest.raises(Refusal) as caught:
        site.book.keep_manifest(more.digest(), more.encode())
    assert caught.value.code == "too_many_projects"
    assert not site.book.has_manifest(more.digest())


def test_the_watch_wakes_when_the_next_grant_ends(site: Site, clock: Clock) -> None:
    agent = Agent(site)
    clock.now = NOW + 999.8
    assert 0.2 <= agent._until_expiry() < 0.3
    take_part(site)
    watch = Watch([site.folder.grants, site.folder.revocations])
    thread = threading.Thread(target=agent._watch, args=(watch,))
    thread.start()
    clock.now = NOW + 1_000
    until = time.monotonic() + 20
    while site.journal.unerased() and time.monotonic() < until:
        time.sleep(0.02)
    assert site.journal.unerased() == []
    assert agent._until_expiry() > 3_000
    watch.close()
    thread.join(10)


def test_nothing_is_sent_after_the_grant_ended(site: Site, clock: Clock) -> None:
    take_part(site)
    task = Task(opening=opening(MANIFEST), phase=Phase.KEYS, deadline=0.0)
    with pytest.raises(Unavailable):  # nobody listens
        rounds.train(site, site.book.project(NAME, NOW), cast(Any, None), task)
    clock.now = NOW + 1_000
    with pytest.raises(Refusal, match="expired"):
        rounds.train(site, site.book.project(NAME, NOW), cast(Any, None), task)


def test_first_weights_are_sealed_for_the_hub_only_against_a_quorum_of_ballots(site: Site) -> None:
    first = opening(MANIFEST, round=0, kind=Kind.INIT, model=None, base=None)
    target = site.work(first.run) / "init.safetensors"
    target.write_bytes(b"weights")
    built = hashlib.sha256(b"weights").hexdigest()

    def ballot(name: str, sha256: str = built) -> Ballot:
        key = sites.AGENT if name == SITE else SigningKey(name.encode().ljust(32))
        certificate = Certificate(
            site=name, epoch=1, signing=key.public, recipient="", not_before=0, not_after=int(NOW) + 10
        ).signed(manifests.ROOTS[name])
        return Ballot(
            certificate=certificate, vote=InitVote(opening=first.digest(), site=name, sha256=sha256).signed(key)
        )

    def build(*shown: Ballot) -> None:
        task = Task(opening=first, phase=Phase.INIT, deadline=0.0, upload=True, ballots=shown)
        rounds.build(site, site.book.project(NAME, NOW), cast(Any, None), task)

    other = canonical.digest("other weights")
    for shown in [(), (ballot(SITE), ballot("nice")), (ballot(SITE), ballot("nice"), ballot("lille", other))]:
        with pytest.raises(Refused, match=r"built the same|not shown"):
            build(*shown)
        assert not target.with_name("init.sealed").exists()
    with pytest.raises(Unavailable):  # it would go to the hub now
        build(ballot(SITE), ballot("nice"), ballot("lille"))
    assert target.with_name("init.sealed").exists()


def test_a_clock_that_is_behind_revokes_what_was_granted(site: Site) -> None:
    given = grant(MANIFEST)
    keyfiles.write_signing_key(site.folder.root_key, manifests.ROOTS[SITE])
    (site.folder.path / "site.yaml").write_text(f"name: {SITE}\nhub: {sites.NOBODY}\n")
    signed = setup.revoke(site.folder.path, NAME, now=given.not_before - 60)
    assert signed.time >= given.not_before
