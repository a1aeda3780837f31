"""What kills a trainer's worker, its Ray, or nothing at all: research code that is broken or hostile, and signals."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import numpy as np
import pytest

from tests.services import trainers
from tests.services.trainers import LEARNER, SECRET, Server, body, first_weights, here, trouble


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with trainers.prepared() as started:
        yield started


def test_a_killed_worker_changes_no_byte(server: Server) -> None:
    start = first_weights(server)
    long = {"local_steps": 20_000}
    before = server.worked("ray::Actor")

    def kill_at_work() -> None:
        while server.worked("ray::Actor") < before + 0.3:  # a fifth of what the fit takes, or less
            time.sleep(0.02)
        server.kill("ray::Actor")

    killer = threading.Thread(target=kill_at_work, daemon=True)
    killer.start()
    _, update = body(server.round("/v1/fit", start, parameters=long), "update")
    assert not killer.is_alive(), "the fit was over before its worker was killed"
    _, local = here(local_steps=20_000)
    assert np.array_equal(update, local["update"])
    assert server.client.get("/v1/health").status_code == 200
    server.kill("ray::Actor")  # and between rounds
    _, again = body(server.round("/v1/fit", start, parameters={**long, "mu": "0.02"}), "update")
    assert np.array_equal(again, update)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("raise ValueError('SECRET')", "ValueError"),
        ("raise type('SECRET', (KeyError,), {})('SECRET')", "KeyError"),
        ("raise SystemExit('SECRET')", "SystemExit"),
        ("raise KeyboardInterrupt('SECRET')", "KeyboardInterrupt"),
        ("import asyncio; raise asyncio.CancelledError('SECRET')", "BaseException"),
        ("raise MemoryError('SECRET')", "MemoryError"),
    ],
)
def test_what_an_exception_says_stays_here(server: Server, code: str, line: str) -> None:
    hostile = LEARNER.replace(
        "        return torch.nn.functional", f"        {code}\n        return torch.nn.functional"
    )
    name = server.package("hostile", hostile.replace("SECRET", SECRET))
    response = server.round("/v1/fit", first_weights(server, name), project=name)
    found = trouble(response, 422, "out_of_memory" if line == "MemoryError" else "learner_error")
    assert (found["error"], found["place"]) == (line, "model.py:9")
    assert SECRET not in str(response.headers)
    log = server.log.read_text()
    assert SECRET in log[log.index(found["incident"]) :]


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("import os; os._exit(0)", 500, "worker_died"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 500, "worker_died"),
        ("while True: pass", 504, "timeout"),
        ("return torch.tensor(float('nan')) * model(x).sum()", 422, "nan_loss"),
        ("return (model(x) @ torch.zeros(13, 1)).sum()", 422, "shape"),
    ],
)
def test_code_that_breaks_its_worker_breaks_nothing_else(server: Server, code: str, status: int, expected: str) -> None:
    broken = LEARNER.replace(
        "        return torch.nn.functional", f"        {code}\n        return torch.nn.functional"
    )
    name = server.package("broken", broken)
    limit = {"timeout": 8} if expected == "timeout" else {}
    response = server.round("/v1/fit", first_weights(server, name), project=name, **limit)
    found = trouble(response, status, expected)
    if expected == "shape":
        assert (found["place"], found["shapes"]) == (
            "model.py:9",
            [[-1, 1], [13, 1]],
        )  # it is the test rows that fail, and their number stays here
    assert server.client.get("/v1/health").status_code == 200
    _, update = body(server.round("/v1/fit", first_weights(server), round=1), "update")
    assert np.array_equal(update, here()[1]["update"])


def test_when_ray_dies_the_trainer_says_so_by_ending() -> None:
    for name in ("gcs_server", "raylet"):
        with trainers.running() as server:
            assert server.client.get("/v1/health").status_code == 200
            server.kill(name)
            with suppress(httpx.TransportError):  # it may have ended already
                assert server.client.get("/v1/health").status_code == 503
            assert server.process.wait(timeout=30) != 0
