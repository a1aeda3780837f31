"""A hub's life: one process a folder, one hub a database, an orderly end, parts that go away, uploads of any size."""

import contextlib
import hashlib
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from koinon.domain import canonical, httpsig, wire
from koinon.domain.run import Kind, Phase
from tests.services import hubs, postgres
from tests.services.consortium import NAMES, Federation
from tests.services.hospitals import Hospital
from tests.services.hubs import HubProcess, wait_for
from tests.services.test_gateway_run import expected_model, result


@pytest.fixture
def federation(hub: HubProcess) -> Iterator[Federation]:
    with Federation(hub) as made:
        yield made


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with hubs.running(tmp_path / "hub") as running:
        yield running


def said(process: "subprocess.Popen[str]") -> tuple[int, str]:
    text, _ = process.communicate(timeout=60)
    return process.returncode, text


def test_a_second_hub_on_the_folder_says_so_and_harms_nothing(hub: HubProcess) -> None:
    code, text = said(hub.launch())
    assert code == 1
    assert "Another hub (process" in text
    with hub.client() as client:
        assert client.get("/readyz").json()["ready"]
    assert (hub.folder / "address").read_text() == hub.url + "\n"
    keys = [path.stat().st_mode & 0o777 for path in (hub.folder / "keys").iterdir()]
    assert keys == [0o600, 0o600]


def test_a_hub_whose_database_was_taken_over_stops(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    first = HubProcess(tmp_path / "first", database=database)
    (tmp_path / "first").mkdir()
    first.start()
    with Federation(first) as federation, hubs.running(tmp_path / "second", database=database):
        body = {"project": federation.manifest.digest(), "parameters": {"rounds": 1}}
        answer = federation.client.post("/v1/runs", json=body)
        assert answer.status_code == 409, answer.text
        assert "Another hub has taken over" in answer.json()["detail"]
        code, text = first.ended()
        assert code == 1
        assert "taken" in text


def test_sigterm_ends_long_polls_and_the_hub(hub: HubProcess, federation: Federation) -> None:
    site = federation.sites["lyon"]
    cursor = site.poll(0, wait=0)["cursor"]
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(site.poll(cursor, wait=25)))
    waiting.start()
    time.sleep(0.5)
    begun = time.monotonic()
    assert hub.stop() == 0
    assert time.monotonic() - begun < 8
    waiting.join()
    assert answers[0]["tasks"] == []
    assert not (hub.folder / "address").exists()


def interrupt(federation: Federation, phase: Phase, happen: Callable[[], object]) -> tuple[str, threading.Event]:
    """A run in which `happen` is called once, when a hospital is about to answer that phase of round 1."""
    lock, happened = threading.Lock(), threading.Event()

    def before(task: wire.Task) -> bool:
        with lock:
            if task.phase is phase and task.opening.round == 1 and not happened.is_set():
                happen()
                happened.set()
        return True

    for site in federation.sites.values():
        site.before = before
    federation.start()
    return federation.submit(rounds=1), happened


def completes_unharmed(federation: Federation, run: str) -> None:
    federation.complete(run)
    assert federation.client.get("/readyz").json()["retrying"] == []
    assert federation.rounds(run)[1]["survivors"] == sorted(NAMES)
    assert np.allclose(result(federation, run), expected_model(NAMES, 1), atol=1e-3)


def test_an_object_store_that_goes_away_and_comes_back_costs_only_time(hub: HubProcess, federation: Federation) -> None:
    store, gone = hub.folder / "artifacts", hub.folder / "gone"
    run, moved = interrupt(federation, Phase.UNMASK, lambda: store.rename(gone))
    assert moved.wait(60)
    waits = wait_for(lambda: [w for w in federation.run(run).get("waiting", ()) if w["for"] == "hub"], 30)
    assert waits[0]["until"] > waits[0]["since"]
    ready = federation.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["artifacts"] != "ok"
    assert run in ready.json()["retrying"][0]
    gone.rename(store)
    completes_unharmed(federation, run)


@pytest.mark.parametrize("phase", [Phase.SHARES, Phase.MASKED, Phase.UNMASK])
def test_a_database_that_dies_and_comes_back_costs_only_time(
    tmp_path: Path, postgres_server: postgres.Server, postgres_url: str, phase: Phase
) -> None:
    with hubs.running(tmp_path / "hub", database=postgres_url) as hub, Federation(hub) as federation:
        run, killed = interrupt(federation, phase, postgres_server.kill)
        try:
            assert killed.wait(60)
            answer = wait_for(lambda: (a := federation.client.get("/v1/projects")).status_code == 503 and a, 30)
            assert answer.json()["code"] == "unavailable"
            assert answer.headers["Retry-After"]
            ready = federation.client.get("/readyz")
            assert ready.status_code == 503
            assert "away" in ready.json()["checks"]["database"]
        finally:
            postgres_server.start()
        completes_unharmed(federation, run)


@pytest.mark.parametrize("phase", [Phase.MASKED, Phase.UNMASK])
def test_a_disk_that_takes_nothing_for_a_while_costs_only_time(
    hub: HubProcess, federation: Federation, phase: Phase
) -> None:
    def limit(size: int) -> None:
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    refused = refusals(federation)
    run, full = interrupt(federation, phase, lambda: limit(0))
    assert full.wait(60)
    wait_for(lambda: len(refused) > 2, 30, "answers that nothing could be written")
    assert federation.run(run)["state"] == "running"
    assert len(federation.rounds(run)) == 2
    limit(resource.RLIM_INFINITY)
    completes_unharmed(federation, run)


@pytest.mark.parametrize(("place", "mebibytes", "phase"), [("spool", 80, Phase.MASKED), ("artifacts", 4, Phase.UNMASK)])
def test_a_full_disk_costs_only_time(tmp_path: Path, place: str, mebibytes: int, phase: Phase) -> None:
    disk = tmp_path / "hub" / place
    disk.mkdir(parents=True)
    with small_disk(disk, mebibytes), hubs.running(tmp_path / "hub") as hub, Federation(hub) as federation:
        refused = refusals(federation)
        run, full = interrupt(federation, phase, lambda: fill(disk))
        assert full.wait(60)
        if place == "spool":
            wait_for(lambda: len(refused) > 2, 30, "uploads that found no room")
            assert {code for code, _ in refused} == {"unavailable"}
            assert any("full" in what for _, what in refused)
        else:
            retrying = wait_for(lambda: federation.client.get("/readyz").json()["retrying"], 30)
            assert run in retrying[0]
            assert "full" in retrying[0] or "No space left" in retrying[0]
        assert federation.run(run)["state"] == "running"
        assert len(federation.rounds(run)) == 2
        (disk / "filler").unlink()
        completes_unharmed(federation, run)


def refusals(federation: Federation) -> list[tuple[str, str]]:
    """Grows by code and detail of every 503 that a hospital gets from now on."""
    seen: list[tuple[str, str]] = []

    def look(response: httpx.Response) -> None:
        if response.status_code == 503:
            problem = canonical.decode(response.read())
            seen.append((problem["code"], problem["detail"]))

    for site in federation.sites.values():
        site.http.event_hooks = {"response": [look]}
    return seen


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """A file system of its own in `folder`; only root may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("no file system can be mounted here; the test with RLIMIT_FSIZE stands for it")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """To the last page."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))


SIZE = 17 * 2**20  # float32: 68 MiB, so that an upload has two parts


def test_an_upload_of_two_parts_survives_everything_that_happens_to_it(hub: HubProcess) -> None:
    with hub.client("maker") as client:
        content = b"a package"
        package = hashlib.sha256(content).hexdigest()
        assert client.put(f"/v1/packages/{package}", content=content).status_code == 201
    model = {"template": "package", "package": package, "layout": [{"name": "w", "shape": [SIZE]}]}
    protection = {"clip": "10000000"}  # L2, of 17 million words
    with Federation(hub, model=model, metrics=["loss"], protection=protection) as federation:
        lyon = federation.sites["lyon"]
        reached: list[wire.Task] = []

        def keep_back(task: wire.Task) -> bool:
            if task.phase is Phase.MASKED and task.opening.kind is Kind.TRAIN:
                reached.append(task)
            return not reached

        lyon.before = keep_back
        federation.start()
        run = federation.submit(rounds=1)
        wait_for(lambda: reached, 120, "the masked phase")
        abuse_the_upload(lyon, reached[0])
        lyon.before = lambda task: True
        lyon.act(reached[0])
        federation.complete(run, 180)
        assert federation.rounds(run)[1]["survivors"] == sorted(NAMES)
        opened = result(federation, run)
        assert np.allclose(opened, expected_model(NAMES, 1, SIZE), atol=2e-3)
    left = [path for path in (hub.folder / "spool").rglob("*") if path.is_file()]
    assert left == []


def abuse_the_upload(site: Hospital, task: wire.Task) -> None:
    """An early message, a broken line, too much, other bytes than signed: none of it counts, and none of it harms."""
    opening = task.opening
    base = f"/v1/sites/me/uploads/{opening.run}/{opening.round}/{opening.attempt}"
    key = (opening.run, opening.round, opening.attempt, task.phase)
    site.sent[key] = site._message(task)
    words = site.sent[(*key, "bytes")]
    shown = site.call("GET", base).json()
    assert (shown["size"], shown["parts"]) == (len(words), [])
    rest = len(words) - wire.PART_BYTES
    early = site.send(task.phase, opening, site.sent[key])
    assert early.status_code == 422
    assert "lacks 2 of 2 parts" in early.json()["detail"]

    assert site.call("PUT", f"{base}/0", words[: wire.PART_BYTES]).status_code == 204
    too_long = site.call("PUT", f"{base}/1", words[wire.PART_BYTES :] + b"....")
    assert too_long.status_code == 413, too_long.text
    assert site.call("PUT", f"{base}/1", words[wire.PART_BYTES : -4]).status_code == 422
    assert site.call("PUT", f"{base}/2", b"....").status_code == 422
    break_the_line(site, f"{base}/1", words[wire.PART_BYTES :])
    assert site.call("GET", base).json()["parts"] == [0]

    assert site.call("PUT", f"{base}/1", bytes(rest)).status_code == 204  # whole, signed, and not what was masked
    wrong = site.send(task.phase, opening, site.sent[key])
    assert (wrong.status_code, wrong.json()["code"]) == (400, "untrusted")
    assert site.call("GET", base).json()["parts"] == []


def break_the_line(site: Hospital, path: str, content: bytes) -> None:
    """Half of a correctly signed part, and the connection is gone."""
    url = site.url + path
    headers = httpsig.sign("PUT", url, site.name, site.signer, created=time.time(), body=content)
    headers |= {"Koinon-Protocol": "1", "Host": "hub", "Content-Length": str(len(content))}
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as line:
        head = f"PUT {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        line.sendall(head.encode() + content[: len(content) // 2])
