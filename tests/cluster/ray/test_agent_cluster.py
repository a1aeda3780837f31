"""The agent's trainer as a job of a real Ray cluster with a token: found again, started again, ended, not trusted."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koinon.agent import cluster
from koinon.agent.cluster import Cluster
from koinon.agent.logs import Log
from koinon.agent.meter import Meter
from koinon.agent.place import Work
from koinon.agent.trainer import Trainer
from koinon.agent.troubles import TrainerTrouble, incident_of
from koinon.domain import tensors
from koinon.domain.errors import Unavailable
from koinon.domain.grant import Resources
from tests.services import heads, trainers
from tests.services.heads import Head
from tests.services.trainers import CONTRACT, HEART, LAYOUT, LEARNER, PARAMETERS, PROJECT, RUN, SECRET, here, wait_until

PREPARE: dict[str, Any] = {
    "project": PROJECT,
    "model": {"template": "tabular", "package": None, "layout": []},
    "package": None,
    "contract": CONTRACT,
    "cohorts": {"all": []},
    "dataset": str(HEART / "cleveland.csv"),
    "metrics": ["accuracy", "auc", "loss"],
    "parts": 1,
}
WORK = Work(PROJECT, PREPARE, HEART / "cleveland.csv", None, Resources(fit_seconds=150))
LONG = 40_000


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with heads.running(PROJECT) as started:
        yield started


class Site:
    """What a site's agent has of one trainer; `again` is what the next agent has."""

    def __init__(self, head: Head, log: Log, folder: Path, work: Work = WORK) -> None:
        self.head, self.log, self.folder, self.work = head, log, folder, work
        self.place = Cluster(work, head.given, self.log)
        self.trainer = Trainer(work, self.place, self.log, Meter())

    def again(self) -> "Site":
        self.trainer.leave()
        return Site(self.head, self.log, self.folder, self.work)

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder / "agent.log").read_text().splitlines()
        return [event for line in lines if (event := json.loads(line))["event"] == kind]

    def init(self) -> np.ndarray[Any, Any]:
        body = {"project": PROJECT, "run": RUN, "seed": 42, "parameters": PARAMETERS}
        made = self.trainer.init(body, tensors.named(LAYOUT, "model"), self.folder / "init")
        text = made.path.read_bytes()
        return np.frombuffer(text[8 + tensors.header_length(text) :], "<f4")

    def fit(self, start: np.ndarray[Any, Any], **changes: Any) -> np.ndarray[Any, Any]:
        fields = {"project": PROJECT, "run": RUN, "round": 1, "seed": 42, "site": "cleveland", "kind": "train"}
        request = {**fields, "parameters": {**PARAMETERS, **changes}}
        head = tensors.header(tensors.named(LAYOUT, "model"), {"request": json.dumps(request)})
        target = self.folder / f"update-{time.monotonic_ns()}"
        wanted = tensors.named(LAYOUT, "update")
        self.trainer.fit(lambda: [head, start.tobytes()], len(head) + start.nbytes, wanted, target)
        return np.fromfile(target, "<f4")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path / "agent.log")
    yield made
    made.close()


@pytest.fixture
def site(head: Head, log: Log, tmp_path: Path) -> Iterator[Site]:
    made = Site(head, log, tmp_path)
    yield made
    made.trainer.stop()
    assert wait_until(lambda: "RUNNING" not in head.states().values())


def meanwhile(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def running(head: Head) -> list[str]:
    return [name for name, state in head.states().items() if state == "RUNNING"]


def test_a_round_in_a_job_is_the_local_steps_and_the_next_agent_finds_it(site: Site, head: Head) -> None:
    began = time.monotonic()
    site.trainer.warm()
    warm = time.monotonic() - began
    assert site.trainer.state == "ready"
    start = site.init()
    assert np.array_equal(site.fit(start), here()[1]["update"])
    (job,) = running(head)
    assert job.startswith(f"koinon-{PROJECT[:12]}-")
    began = time.monotonic()
    later = site.again()
    assert np.array_equal(later.fit(start, local_steps=101), here(local_steps=101)[1]["update"])
    print(f"\nstart to ready {warm:.1f} s, the next agent to its first answer {time.monotonic() - began:.1f} s")
    assert running(head) == [job]
    later.trainer.stop()


def test_the_token_is_in_no_argument_and_in_nothing_that_the_jobs_api_shows(site: Site, head: Head) -> None:
    site.trainer.warm()
    assert head.token not in head.jobs().text
    assert not any(head.token in command for command in head.processes().values())
    assert head.token not in repr(site.trainer._client)
    for path in ("/v1/health", "/v1/prepare", f"/v1/packages/{'0' * 64}", "/v1/incidents/0", "/anything"):
        for given in ({}, {"Authorization": "Bearer " + "0" * 64}, {"Authorization": f"Basic {head.token}"}):
            client = site.place._client()
            client.headers.pop("Authorization")
            assert client.get(path, headers=given).status_code == 401
            client.close()
    assert head.jobs("0" * 64).status_code in (401, 403)


def test_a_site_with_another_secret_is_told_why(head: Head, log: Log, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"another")
    other = head.given.model_copy(update={"ray_secret": str(tmp_path / "secret")})
    with pytest.raises(Unavailable, match="refuses this site's token"):
        Trainer(WORK, Cluster(WORK, other, log), log, Meter()).warm()
    missing = head.given.model_copy(update={"ray_secret": str(tmp_path / "nowhere")})
    with pytest.raises(Unavailable, match="koinon-ray"):
        Trainer(WORK, Cluster(WORK, missing, log), log, Meter()).warm()


def test_a_killed_job_is_started_again_and_changes_no_byte(site: Site, head: Head) -> None:
    start = site.init()
    (before,) = running(head)

    def kill_at_work() -> None:
        time.sleep(1.0)
        for pid in head.named("koinon.trainer"):
            os.kill(pid, signal.SIGKILL)

    killer = meanwhile(kill_at_work)
    update = site.fit(start, local_steps=LONG)
    assert not killer.is_alive()
    assert np.array_equal(update, here(local_steps=LONG)[1]["update"])
    (after,) = running(head)
    assert int(after.rpartition("-")[2]) == int(before.rpartition("-")[2]) + 1
    assert site.events("trainer-lost")


def test_a_connection_that_breaks_joins_the_round_under_way(site: Site, head: Head) -> None:
    start = site.init()
    (before,) = running(head)

    def cut() -> None:
        time.sleep(1.0)
        assert site.trainer._limit is not None
        for found in site.trainer._limit._sockets:
            found.shutdown(2)

    meanwhile(cut)
    assert np.array_equal(site.fit(start, local_steps=LONG), here(local_steps=LONG)[1]["update"])
    assert site.events("trainer-lost")
    assert running(head) == [before]


def test_a_head_that_was_lost_is_waited_for(log: Log, tmp_path: Path) -> None:
    with heads.running(PROJECT) as head:
        site = Site(head, log, tmp_path)
        start = site.init()
        times = {}

        def lose_and_bring_back() -> None:
            time.sleep(1.0)
            head.kill()
            times["killed"] = time.monotonic()
            time.sleep(3.0)
            head.start()
            times["back"] = time.monotonic()

        keeper = meanwhile(lose_and_bring_back)
        update = site.fit(start, local_steps=LONG)
        ended = time.monotonic()
        keeper.join()
        print(f"\nhead back after {times['back'] - times['killed']:.1f} s, answer {ended - times['back']:.1f} s later")
        assert np.array_equal(update, here(local_steps=LONG)[1]["update"])
        assert site.events("cluster-away")
        site.trainer.stop()


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
def test_a_part_of_ray_that_dies_takes_the_trainer_with_it(log: Log, tmp_path: Path, part: str) -> None:
    """As in a pod: `ray start --block` ends, and the container is started again."""
    with heads.running(PROJECT) as head:
        site = Site(head, log, tmp_path)
        site.trainer.warm()
        began = time.monotonic()
        for pid in head.named(f"/{part}"):
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not head.named("koinon.trainer"), 60)
        print(f"\n{part} killed, the trainer gone after {time.monotonic() - began:.1f} s")
        assert wait_until(lambda: not head.named("ray::Actor"), 60)
        site.trainer.leave()


def test_a_cluster_that_stays_away_puts_the_task_off(
    head: Head, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "WAIT_SECONDS", 2.0)
    away = Site(head, log, tmp_path)
    away.place._given = head.given.model_copy(update={"jobs_port": 9})
    began = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        away.trainer.warm()
    assert 2.0 <= time.monotonic() - began < 10.0
    monkeypatch.setattr(cluster, "WAIT_SECONDS", 600.0)

    def end() -> None:
        time.sleep(1.0)
        away.trainer.stop()

    ending = meanwhile(end)
    with pytest.raises(Unavailable):
        away.trainer.warm()
    ending.join(10)
    assert time.monotonic() - began < 20.0


def packaged(site: Site, tmp_path: Path, code: str, seconds: int = 150) -> Site:
    """The same site with a package instead of the template."""
    package = trainers.zipped(code)
    path = tmp_path / "package.zip"
    path.write_bytes(package)
    import hashlib

    sha256 = hashlib.sha256(package).hexdigest()
    layout = [tensor.model_dump(mode="json") for tensor in LAYOUT]
    model = {"template": "package", "package": sha256, "layout": layout}
    prepare = {**PREPARE, "model": model, "package": sha256}
    work = replace(WORK, prepare=prepare, package=path, resources=Resources(fit_seconds=seconds))
    return Site(site.head, site.log, site.folder, work)


def test_a_package_is_sent_and_a_round_over_its_time_ends_the_job(site: Site, head: Head, tmp_path: Path) -> None:
    assert np.array_equal(packaged(site, tmp_path, LEARNER).fit(site.init()), here()[1]["update"])
    hanging = LEARNER.replace(
        "        return torch.nn.functional", "        while True: pass\n        return torch.nn.functional"
    )
    site = packaged(site, tmp_path, hanging, seconds=10)
    site.trainer.warm()
    (before,) = running(head)
    with pytest.raises(TrainerTrouble) as caught:
        site.fit(np.zeros(14, "<f4"))
    assert caught.value.code == "timeout"
    assert wait_until(lambda: head.states().get(before) != "RUNNING", 15)
    assert wait_until(lambda: not head.named("ray::Actor"), 15), head.processes()


def test_an_error_of_research_code_is_told_here_and_not_there(site: Site, tmp_path: Path) -> None:
    hostile = LEARNER.replace(
        "        return torch.nn.functional", f"        raise ValueError('{SECRET}')\n        return torch"
    )
    site = packaged(site, tmp_path, hostile)
    with pytest.raises(TrainerTrouble) as caught:
        site.fit(np.zeros(14, "<f4"))
    assert caught.value.said["place"] == "model.py:9"
    assert SECRET not in json.dumps(caught.value.said)
    assert SECRET in site.trainer.told(incident_of(caught.value))
    assert site.trainer.told("0" * 12) == ""
    site.trainer.stop()


def test_another_grant_gets_another_job(site: Site, head: Head) -> None:
    site.trainer.warm()
    (before,) = running(head)
    other = Site(head, site.log, site.folder, replace(WORK, resources=Resources(fit_seconds=99)))
    other.trainer.warm()
    (after,) = running(head)
    assert after != before
    assert head.states()[before] != "RUNNING"
    other.trainer.stop()
