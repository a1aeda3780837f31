"""Whole runs over HTTP: a real hub process, real signed requests, the real protocol."""

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koinon.artifacts import keyfiles, sealing
from koinon.domain import canonical, tensors, wire
from koinon.domain.errors import Untrusted
from koinon.domain.run import Kind, Phase
from tests.services import hubs
from tests.services.consortium import NAMES, Federation
from tests.services.hospitals import Hospital
from tests.services.hubs import wait_for


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    with hubs.running(tmp_path / "hub") as hub, Federation(hub) as made:
        yield made


def expected_model(names: tuple[str, ...], rounds: int, size: int = 5, seed: int = 42) -> np.ndarray:
    """What FedAvg makes of the hospitals' formula, in plain arithmetic."""
    model = np.linspace(-1, 1, size, dtype=np.float32) * seed
    for _ in range(rounds):
        weights = {name: 10 + len(name) for name in names}
        total = sum(weights[name] * 0.5 * (len(name) - model) for name in names)
        model = model + total / sum(weights.values())
    return model


def result(federation: Federation, run: str) -> np.ndarray:
    found = federation.client.get(f"/v1/runs/{run}/artifacts").json()["artifacts"]
    row = next(item for item in found if item["kind"] == "result")
    sealed = federation.client.get(f"/v1/runs/{run}/artifacts/{row['name']}").content
    assert hashlib.sha256(sealed).hexdigest() == row["name"]
    expected = sealing.Expected(
        federation.manifest.digest(), run, row["round"], "result", sealing.UNKNOWN, row["plaintext"], sealing.UNKNOWN
    )
    signer = federation.manifest.hub.signing
    with pytest.raises(Untrusted):
        sealing.open_bytes(sealed, keyfiles.new_identity(), signer=signer, expected=expected)
    plain = sealing.open_bytes(sealed, federation.reader, signer=signer, expected=expected)
    return np.frombuffer(plain[8 + tensors.header_length(bytes(plain[:8])) :], "<f4")


def test_run_trains_scores_and_seals(federation: Federation) -> None:
    federation.start()
    for site in federation.sites.values():
        site.took = "train:0.010,evaluate:0.002"
    run = federation.submit(rounds=3)
    done = federation.complete(run)
    assert done["waiting"] == []
    rounds = federation.rounds(run)
    assert [row["kind"] for row in rounds] == ["init", "train", "train", "train", "evaluate"]
    assert all(row["state"] == "committed" for row in rounds)
    assert rounds[1]["survivors"] == sorted(NAMES)
    assert {"train", "keys", "shares", "masked", "survivors", "unmask", "commit", "round"} <= set(rounds[1]["seconds"])
    assert rounds[1]["seconds"]["lyon.evaluate"] == 0.002
    scores = federation.client.get(f"/v1/runs/{run}/metrics").json()["metrics"]
    assert [row["version"] for row in scores] == [0, 1, 2, 3]
    assert scores[0]["metrics"]["accuracy"]["mean"] == pytest.approx(0.5, abs=1e-6)
    assert np.allclose(result(federation, run), expected_model(NAMES, 3), atol=1e-3)
    events = federation.client.get(f"/v1/runs/{run}/events").json()["events"]
    assert events[0]["previous"] == federation.manifest.digest()
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))


@pytest.mark.parametrize("strategy", ["scaffold", "fedyogi"])
def test_strategies_with_state_go_through_artifacts(federation: Federation, strategy: str) -> None:
    federation.start()
    run = federation.submit(strategy=strategy, server_learning_rate="0.1")
    federation.complete(run)
    kinds = [item["kind"] for item in federation.client.get(f"/v1/runs/{run}/artifacts").json()["artifacts"]]
    assert kinds.count("model") == 3
    assert kinds.count("optimiser") == (3 if strategy == "fedyogi" else 0)
    assert np.isfinite(result(federation, run)).all()


def vanish(site: Hospital, round: int, phase: Phase) -> None:
    """The hospital answers nothing from that phase of that round on, until it is told otherwise."""
    site.before = lambda task: (task.opening.round, task.phase) != (round, phase) and task.opening.round <= round


def test_dropout_costs_only_its_own_contribution(tmp_path: Path) -> None:
    with hubs.running(tmp_path / "hub") as hub, Federation(hub, deadlines={"train": 60, "phase": 10}) as federation:
        nice = federation.sites["nice"]
        federation.start()
        for phase in (Phase.SHARES, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASK):
            vanish(nice, 1, phase)
            run = federation.submit(rounds=1)
            wait_for(lambda run=run: len(federation.rounds(run)) > 2, 60, "the round after the dropout")
            nice.before = lambda task: True
            federation.complete(run)
            contributed = NAMES if phase in (Phase.SURVIVORS, Phase.UNMASK) else NAMES[:3]
            assert federation.rounds(run)[1]["survivors"] == sorted(contributed), phase
            assert np.allclose(result(federation, run), expected_model(contributed, 1), atol=1e-3)


def test_late_vote_does_not_take_the_next_task_off_the_board(federation: Federation) -> None:
    """Three votes are enough to go on; the fourth, when it comes, must not cost its site's release of shares."""
    unmasking = threading.Event()

    def votes_late(task: wire.Task) -> bool:
        return (task.opening.round, task.phase) != (1, Phase.SURVIVORS) or unmasking.wait(30)

    def releases_nothing(task: wire.Task) -> bool:
        if (task.opening.round, task.phase) == (1, Phase.UNMASK):
            unmasking.set()
            return False
        return True

    federation.sites["lille"].before, federation.sites["nice"].before = votes_late, releases_nothing
    federation.start()
    run = federation.submit(rounds=1)
    federation.complete(run, 45)
    assert unmasking.is_set()
    assert [row["state"] for row in federation.rounds(run)] == ["committed"] * 3


def test_too_few_sites_fail_with_names(tmp_path: Path) -> None:
    with hubs.running(tmp_path / "hub") as hub, Federation(hub, deadlines={"train": 60, "phase": 5}) as federation:
        federation.start()
        for name in ("nice", "lyon"):
            federation.sites[name].before = lambda task: task.phase is not Phase.SHARES
        done = federation.finish(federation.submit(rounds=1))
        assert done["state"] == "failed"
        assert "lyon, nice" in done["reason"]


def test_released_but_not_opened_round_is_void_and_the_model_stays(tmp_path: Path) -> None:
    with hubs.running(tmp_path / "hub") as hub, Federation(hub, deadlines={"train": 60, "phase": 10}) as federation:
        federation.start()
        for name in ("nice", "lyon"):
            federation.sites[name].before = lambda task: (task.opening.round, task.phase) != (1, Phase.UNMASK)
        run = federation.submit(rounds=1)
        federation.complete(run)
        rounds = federation.rounds(run)
        assert [row["state"] for row in rounds] == ["committed", "void", "committed", "committed"]
        assert rounds[1]["version"] == rounds[2]["version"] == 0
        assert np.allclose(result(federation, run), expected_model(NAMES, 1), atol=1e-3)


def test_trouble_ends_the_wait_and_is_told(federation: Federation) -> None:
    def trouble(task: wire.Task) -> bool:
        if task.opening.kind is Kind.INIT:
            return True
        federation.sites["nice"].report(task.opening, "nan_loss", "model.py:9")
        return False

    federation.sites["nice"].before = trouble
    federation.start()
    run = federation.submit(rounds=1)
    federation.complete(run)
    assert federation.rounds(run)[1]["survivors"] == sorted(NAMES[:3])
    events = federation.client.get(f"/v1/runs/{run}/events").json()["events"]
    told = next(event["data"] for event in events if event["kind"] == "site.trouble")
    assert (told["site"], told["trouble"]["place"]) == ("nice", "model.py:9")


def test_waiting_says_for_whom_and_until_when(federation: Federation) -> None:
    federation.start("lille", "lyon")
    run = federation.submit()
    waits = wait_for(lambda: federation.run(run).get("waiting"))
    assert {wait["for"] for wait in waits} >= {"nantes", "nice"}
    assert all(wait["until"] > time.time() and wait["why"] == "is not connected" for wait in waits if
               wait["for"] in ("nantes", "nice"))  # fmt: skip
    answer = federation.client.post(f"/v1/runs/{run}/cancel")
    assert answer.json()["state"] == "cancelled"
    assert federation.client.delete(f"/v1/runs/{run}").status_code == 204
    assert federation.client.get(f"/v1/runs/{run}").status_code == 404


def test_events_stream_until_the_run_is_over(federation: Federation) -> None:
    federation.start()
    run = federation.submit(rounds=1)
    seen: list[dict[str, Any]] = []
    headers = {"Accept": "text/event-stream"}
    with federation.client.stream("GET", f"/v1/runs/{run}/events", headers=headers, timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                seen.append(canonical.decode(line[6:]))  # noqa: PERF401 -- it is a stream
    chained = [event for event in seen if event["kind"] != "waiting"]
    assert chained[-1]["kind"] == "run.completed"
    assert [event["seq"] for event in chained] == list(range(1, len(chained) + 1))
    assert any(event["kind"] == "waiting" and event["waiting"] for event in seen)


PHASES = [Phase.INIT, Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASK]


def test_killed_in_every_phase_the_hub_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL in every phase, while answers are under way; the model's bytes are the undisturbed ones."""
    every = {(Kind.INIT, Phase.INIT)} | {(Kind.TRAIN, phase) for phase in PHASES[1:]}
    undisturbed = bytes_of_a_run(tmp_path / "undisturbed", set())
    assert bytes_of_a_run(tmp_path / "killed", every) == undisturbed


def bytes_of_a_run(folder: Path, pending: set[tuple[Kind, Phase]]) -> tuple[bytes, list[Any]]:
    """The result of a run whose hub was killed once in each of the `pending` phases, and each round's survivors."""
    due, counts, lock = threading.Event(), dict[tuple[Kind, Phase], int](), threading.Lock()

    def answer(task: wire.Task) -> bool:
        place = (task.opening.kind, task.phase)
        with lock:
            counts[place] = counts.get(place, 0) + 1
            if place in pending and counts[place] == 3:  # two sites have answered, or are about to
                pending.discard(place)
                due.set()
        return True

    folder.mkdir()
    with hubs.running(folder / "hub") as hub, Federation(hub) as federation:
        for site in federation.sites.values():
            site.before = answer
        federation.start()
        run = federation.submit(rounds=2)
        while federation.run(run)["state"] not in ("completed", "failed"):
            if due.wait(0.05):
                due.clear()
                hub.kill()
                hub.start()
        federation.complete(run)
        assert not pending
        with hub.store() as store:
            assert store.verify_chain(run) > 5
        return result(federation, run).tobytes(), [row["survivors"] for row in federation.rounds(run)]
