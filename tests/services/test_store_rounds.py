"""The shared suite, continued: runs, rounds and messages, on SQLite and on PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from koinon.domain.errors import Conflict, Invalid, NotFound
from koinon.domain.parameters import Parameters
from koinon.domain.run import Kind, Phase, RoundState, RunState
from koinon.domain.wire import Trouble
from koinon.store import schema
from koinon.store.store import Store
from tests.services import federation

LATER = federation.LATER


def test_a_run_is_submitted_once_per_key(store: Store) -> None:
    project = federation.project(store)
    with ThreadPoolExecutor(8) as pool:
        ids = [f"run{number:03}" for number in range(8)]
        parameters: Parameters = {"rounds": 3}
        runs = list(pool.map(lambda i: store.add_run(i, project.hash, "ada", parameters, key="k", digest="d").id, ids))
    assert len(set(runs)) == 1
    assert len(store.runs()) == 1
    with pytest.raises(Conflict):
        store.add_run("run100", project.hash, "ada", {"rounds": 4}, key="k", digest="other")
    assert store.add_run("run100", project.hash, "bob", {"rounds": 4}, key="k", digest="other").id == "run100"
    with pytest.raises(Conflict):
        store.add_run("run100", project.hash, "bob", {"rounds": 4})
    with pytest.raises(NotFound):
        store.add_run("run200", "0" * 64, "bob", {"rounds": 4})
    assert [run.id for run in store.runs(owner="bob", state=RunState.QUEUED)] == ["run100"]
    assert store.runs(owner="bob", state=RunState.FAILED) == store.runs(project="0" * 64) == []
    assert len(store.runs(limit=1)) == 1


def test_a_whole_run(store: Store) -> None:
    federation.running(store)
    for number in range(3):
        federation.whole_round(store, "run001", number)
    federation.whole_round(store, "run001", 3, Kind.EVALUATE)
    run = store.run("run001")
    assert (run.state, run.version, run.model_round) == (RunState.COMPLETED, 2, 2)
    assert (run.model, run.optimiser, run.result) == (federation.ref(2), federation.ref(502), federation.ref(9_999))
    assert run.finished is not None
    assert store.metrics("run001") == [(version, federation.METRICS) for version in range(3)]
    assert [(a.round, a.kind) for a in store.artifacts("run001")] == [
        (0, "model"),
        (1, "model"),
        (1, "optimiser"),
        (2, "model"),
        (2, "optimiser"),
        (3, "result"),
    ]
    rounds = store.rounds("run001")
    assert [found.version for found in rounds] == [-1, 0, 1, 2]
    assert (rounds[1].first, rounds[1].survivors) == (federation.SITES, federation.SITES)
    assert (rounds[1].seconds, rounds[1].bytes, rounds[1].released) == ({"train": 0.25}, 1_234, True)
    assert store.rounds("run001", last=1) == rounds[-1:]
    attempt = store.attempt("run001", 1, 1)
    assert list(attempt.phases) == sorted(attempt.phases)
    assert attempt.phase is Phase.DONE
    assert attempt.roster == federation.roster(attempt.opening)
    assert attempt.survivors == federation.survivors(attempt.opening)
    assert store.messages("run001", 1, 1, Phase.SHARES) == {}
    project = store.project(run.project)
    assert (project.rounds, project.releases) == (3, 1)
    kinds = [event.kind for event in store.events("run001")]
    assert kinds[:4] == ["run.submitted", "run.running", "round.opened", "round.committed"]
    assert kinds[-2:] == ["round.committed", "run.completed"]
    assert store.verify_chain("run001") == len(kinds)
    assert store.active_runs() == []


def test_a_repeated_commit_is_the_same_and_another_is_refused(store: Store) -> None:
    federation.running(store)
    federation.whole_round(store, "run001", 0)
    before = (store.run("run001"), store.rounds("run001"), store.events("run001"))
    federation.commit(store, "run001", 0, Kind.INIT)
    assert (store.run("run001"), store.rounds("run001"), store.events("run001")) == before
    with pytest.raises(Conflict):
        federation.commit(store, "run001", 0, Kind.TRAIN)


def test_steps_out_of_order_are_refused_and_repeats_change_nothing(store: Store) -> None:
    federation.running(store)
    federation.refuses(store.open_round, federation.opening(store, "run001", 1), LATER)
    stale = federation.opening(store, "run001", 0, Kind.INIT)
    store.append_event("run001", "note", {"why": "an event between"})
    with pytest.raises(Conflict, match="between"):
        store.open_round(stale, LATER)
    federation.whole_round(store, "run001", 0)
    opened = federation.opening(store, "run001", 1)
    attempt = store.open_round(opened, LATER)
    assert store.open_round(opened, LATER) == attempt
    federation.refuses(store.open_round, federation.opening(store, "run001", 2), LATER)
    federation.refuses(store.open_attempt, federation.opening(store, "run001", 1, attempt=2), LATER)
    federation.refuses(store.advance, "run001", 1, 1, Phase.MASKED, LATER)
    federation.refuses(store.mark_released, "run001", 1)
    federation.refuses(federation.commit, store, "run001", 1, Kind.TRAIN)
    with pytest.raises(Invalid):
        store.advance("run001", 1, 1, Phase.SHARES, LATER)
    moved = store.advance("run001", 1, 1, Phase.SHARES, LATER, roster=federation.roster(opened))
    again = store.advance("run001", 1, 1, Phase.SHARES, LATER + 1, roster=federation.roster(opened))
    assert moved == again
    federation.refuses(
        store.advance, "run001", 1, 1, Phase.SHARES, LATER, roster=federation.roster(opened, federation.SITES[:2])
    )
    with pytest.raises(NotFound):
        store.advance("run001", 9, 1, Phase.MASKED, LATER)
    assert [event.kind for event in store.events("run001")].count("attempt.advanced") == 1


def test_a_new_attempt_keeps_the_first_roster_until_a_share_is_released(store: Store) -> None:
    federation.running(store)
    federation.whole_round(store, "run001", 0)
    first = store.open_round(federation.opening(store, "run001", 1), LATER)
    federation.bring_to(store, first, Phase.MASKED)
    failed = store.fail_attempt("run001", 1, 1, "too few")
    assert (failed.phase, failed.reason) == (Phase.FAILED, "too few")
    assert store.fail_attempt("run001", 1, 1, "too few") == failed
    assert store.messages("run001", 1, 1, Phase.KEYS) == {}
    second = store.open_attempt(federation.opening(store, "run001", 1, attempt=2), LATER)
    with pytest.raises(Conflict):
        store.advance(
            "run001", 1, 2, Phase.SHARES, LATER, roster=federation.roster(second.opening, first=("lille", "lyon"))
        )
    federation.bring_to(store, second, Phase.UNMASK)
    store.mark_released("run001", 1)
    store.mark_released("run001", 1)
    assert store.round("run001", 1).released
    federation.refuses(store.fail_attempt, "run001", 1, 2, "too few")
    void = store.void_round("run001", 1, "too few shares")
    assert store.void_round("run001", 1, "too few shares") == void
    assert void.state is RoundState.VOID
    assert [attempt.phase for attempt in store.attempts("run001", 1)] == [Phase.FAILED, Phase.FAILED]
    federation.whole_round(store, "run001", 2)
    assert store.run("run001").version == 2


def test_the_end_of_a_run_ends_its_round(store: Store) -> None:
    federation.running(store)
    federation.whole_round(store, "run001", 0)
    federation.bring_to(store, store.open_round(federation.opening(store, "run001", 1), LATER), Phase.SHARES)
    ended = store.set_run_state("run001", RunState.CANCELLED, "by ada")
    assert store.set_run_state("run001", RunState.CANCELLED, "again") == ended
    assert ended.reason == "by ada"
    assert store.round("run001", 1).state is RoundState.FAILED
    assert store.messages("run001", 1, 1, Phase.KEYS) == {}
    federation.refuses(store.put_message, "run001", 1, 1, Phase.SHARES, "lille", b"late")
    federation.refuses(store.set_run_state, "run001", RunState.RUNNING)
    assert store.events("run001")[-1].data == {"reason": "by ada"}


def test_delete_run_leaves_only_the_chain(store: Store, raw: sa.Engine) -> None:
    federation.running(store)
    with pytest.raises(Conflict):
        store.delete_run("run001")
    for number in range(2):
        federation.whole_round(store, "run001", number)
    store.open_round(federation.opening(store, "run001", 2), LATER)
    trouble = Trouble(code="nan_loss", incident="0123456789ab")
    store.put_trouble("run001", 2, 1, "lille", trouble)
    store.set_run_state("run001", RunState.FAILED, "trouble")
    assert store.troubles("run001", 2, 1) == {"lille": trouble}
    store.delete_run("run001")
    with pytest.raises(NotFound):
        store.delete_run("run001")
    with raw.connect() as connection:
        for name, table in schema.metadata.tables.items():
            if "run" in table.c and name not in ("chains", "events"):
                assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0, name
    assert store.events("run001")[-1].kind == "run.deleted"
    store.verify_chain("run001")
    project = store.project("heart")
    assert project.rounds == 2  # not given back
    federation.refuses(store.add_run, "run001", project.hash, "ada", {"rounds": 1})


def test_many_sites_put_messages_at_once(store: Store) -> None:
    federation.running(store)
    store.open_round(federation.opening(store, "run001", 0, Kind.INIT), LATER)
    sites = [f"site{number:02}" for number in range(30)]
    start = threading.Barrier(30)

    def put(site: str, body: bytes) -> bool | None:
        start.wait()
        try:
            return store.put_message("run001", 0, 1, Phase.INIT, site, body)
        except Conflict:
            return None

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(lambda site: put(site, site.encode()), sites)) == [True] * 30
        one_body = list(pool.map(lambda _: put("same", b"same"), sites))
        many_bodies = list(pool.map(lambda site: put("many", site.encode()), sites))
    assert sorted(one_body, key=str) == [False] * 29 + [True]
    assert many_bodies.count(True) == 1
    assert many_bodies.count(None) == 29
    stored = store.messages("run001", 0, 1, Phase.INIT)
    assert stored.pop("same") == b"same"
    assert stored.pop("many") == sites[many_bodies.index(True)].encode()
    assert stored == {site: site.encode() for site in sites}


def test_what_advance_saw_is_all_there_ever_is(store: Store) -> None:
    """A message that races with the end of its phase is either in or refused: never in and overlooked."""
    federation.running(store)
    federation.whole_round(store, "run001", 0)
    opened = store.open_round(federation.opening(store, "run001", 1), LATER).opening
    sites = [f"site{number:02}" for number in range(24)]
    roster = federation.roster(opened)

    def put(site: str) -> bool:
        try:
            return store.put_message("run001", 1, 1, Phase.KEYS, site, b"keys")
        except Conflict:
            return False

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(put, site) for site in sites]
        answers[4].result()
        store.advance("run001", 1, 1, Phase.SHARES, LATER, roster=roster)
        seen = store.messages("run001", 1, 1, Phase.KEYS)
        accepted = {site for site, answer in zip(sites, answers, strict=True) if answer.result()}
    assert set(seen) == accepted == set(store.messages("run001", 1, 1, Phase.KEYS))
    assert not store.put_message("run001", 1, 1, Phase.KEYS, sites[4], b"keys")  # a repeat may come late
    with pytest.raises(Invalid):
        store.put_message("run001", 1, 1, Phase.UNMASK, "lille", b"a share in the clear")


def test_uploads_folds_and_sealings(store: Store) -> None:
    federation.running(store)
    federation.whole_round(store, "run001", 0)
    store.open_round(federation.opening(store, "run001", 1), LATER)
    store.put_part("run001", 1, 1, "lille", 1, 5)
    store.put_part("run001", 1, 1, "lille", 0, 64)
    store.put_part("run001", 1, 1, "lille", 1, 6)
    assert store.parts("run001", 1, 1, "lille") == {0: 64, 1: 6}
    assert store.fold("run001", 1, 1) is None
    store.set_fold("run001", 1, 1, "sum-1", "a" * 64, {"lille": "b" * 64})
    store.set_fold("run001", 1, 1, "sum-2", "c" * 64, {"lille": "b" * 64, "lyon": "d" * 64})
    federation.refuses(store.set_fold, "run001", 1, 1, "sum-3", "e" * 64, {"lyon": "d" * 64})
    fold = store.fold("run001", 1, 1)
    assert fold is not None
    assert (fold.name, fold.roots) == ("sum-2", {"lille": "b" * 64, "lyon": "d" * 64})
    first = store.put_sealing("run001", 1, "model", b"header", b"key")
    assert store.put_sealing("run001", 1, "model", b"another", b"one") == first
    assert store.sealing("run001", 1, "model") == first
    assert store.sealing("run001", 1, "result") is None
    store.fail_attempt("run001", 1, 1, "over")
    assert (store.parts("run001", 1, 1, "lille"), store.fold("run001", 1, 1)) == ({}, None)
    federation.refuses(store.put_part, "run001", 1, 1, "lille", 0, 64)
    with pytest.raises(NotFound):
        store.put_part("run001", 1, 7, "lille", 0, 64)
