"""A run whose processes are killed at random ends in the same bytes as an undisturbed one.

The seed is printed; `SEED=… make test T=chaos` replays the choice of victims and moments.
"""

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from koinon.client import local
from koinon.client.local import Local
from koinon.client.processes import short_environment
from koinon.client.runs import Run
from koinon.domain import errors
from tests.chaos import victims

KILLS = int(os.environ.get("KILLS", "10"))
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
CHOICES: dict[str, Any] = {"rounds": 6 * KILLS, "strategy": "fedyogi", "seed": 42, "learning_rate": "0.003162"}
RESUME_SECONDS = 60.0
PATIENCE = 180.0  # before the test gives up on a resume, so that a slow one is reported as its figure


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with local.local(sites=4, folder=tmp_path_factory.mktemp("chaos")) as running:
        yield running


def start_hub(federation: Local) -> None:
    """As an init system would: the same folder, the same address."""
    folder = federation.folder / "hub"
    port = federation.connection.url.rsplit(":", 1)[1].strip("/")
    command = [sys.executable, "-m", "koinon.cli", "hub", "serve", "--dir", str(folder), "--port", port]
    federation.processes.start("hub", command, federation.folder / "log" / "hub.log", short_environment())


def kill(federation: Local, kind: str, site: str) -> None:
    """Fails if there is nothing to kill for a minute: a trainer that was killed lately has to come back first."""
    until = time.monotonic() + RESUME_SECONDS
    killed = 0
    while not killed:
        assert time.monotonic() < until, f"{site} has no {kind} to kill"
        for pid in victims.of(federation, kind, site):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    if kind in ("hub", "agent"):
        assert federation.processes.wait("hub" if kind == "hub" else site, 10) is not None
        if kind == "hub":
            start_hub(federation)
        else:
            federation.start_site(site)


def last_event(run: Run) -> int:
    return int(run.events()[-1]["seq"])


def wait_for_progress(run: Run, after: int, seconds: float) -> float:
    """How long it took until the run's chain grew beyond `after`; the hub may be away meanwhile."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            if last_event(run) > after:
                return time.monotonic() - began
        except errors.Unavailable:
            pass
        time.sleep(0.05)
    raise AssertionError(f"no progress for {seconds:.0f} s after event {after}: {run.waiting()}")


def committed(run: Run) -> list[tuple[Any, ...]]:
    """Per round: its kind, the plaintext hash of the model it made, and whose updates are in it."""
    models = {row["round"]: row["plaintext"] for row in run.artifacts() if row["kind"] == "model"}
    return [
        (row["number"], row["kind"], models.get(row["number"]), tuple(row["survivors"]))
        for row in run.rounds()
        if row["state"] == "committed"
    ]


@pytest.mark.timeout(1_800)
def test_a_run_killed_at_random_ends_in_the_same_bytes(federation: Local, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    sites = sorted(federation.data)
    kinds = [victims.KINDS[index % len(victims.KINDS)] for index in range(KILLS)]
    chance.shuffle(kinds)
    print(f"\nSEED={SEED}: {KILLS} kills: {' '.join(kinds)}")

    project = federation.create_project("storm", deadlines={"train": 900, "phase": 600})
    calm = project.submit(**CHOICES).wait(timeout=600)
    storm = project.submit(**CHOICES, again=True)
    wait_for_progress(storm, 1, PATIENCE)

    resumed = []
    for kind in kinds:
        site = chance.choice(sites)
        # Within the next two rounds, at any moment of them; a fixed time would outlast a fast machine's run.
        wait_for_progress(storm, last_event(storm) + chance.randrange(12), PATIENCE)
        time.sleep(chance.uniform(0.0, 0.05))
        assert not storm.refresh().finished, f"the run was over before all kills: {storm.state} {storm.reason}"
        before = last_event(storm)
        kill(federation, kind, site)
        # What was under way may still arrive; the run has resumed when it gets beyond the next round's end.
        seconds = wait_for_progress(storm, before + 8, PATIENCE)
        print(f"{kind:8} {site if kind != 'hub' else '':12} resumed after {seconds:.1f} s")
        resumed.append(seconds)

    storm.wait(timeout=600)
    assert [row[-1] for row in committed(storm)] == [row[-1] for row in committed(calm)], "survivor sets differ"
    assert committed(storm) == committed(calm)
    assert storm.metrics() == calm.metrics()
    assert storm.download(tmp_path / "storm").read_bytes() == calm.download(tmp_path / "calm").read_bytes()
    assert max(resumed) < RESUME_SECONDS
