"""The trainer as it runs in a hospital: its own process and Ray behind a Unix socket, and what kills them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from koinon.domain import contract as contracts
from koinon.domain import tensors, wire
from koinon.domain.layout import Tensor
from koinon.trainer import data, features, packages, steps

HEART = Path(contracts.__file__).parents[1] / "data" / "heart"
CONTRACT = contracts.from_yaml((HEART / "contract.yaml").read_text()).model_dump(mode="json")
LAYOUT = (Tensor(name="weight", shape=(1, 13)), Tensor(name="bias", shape=(1,)))
PROJECT, RUN = "a" * 64, "run042"
PARAMETERS: dict[str, int | str] = {
    "strategy": "fedavg",
    "cohort": "all",
    "local_steps": 100,
    "batch_size": 4,
    "learning_rate": "0.01",
    "mu": "0.01",
    "architecture": "linear",
    "hidden": 16,
}
SECRET = "patient-record-63"


class Server:
    """A running trainer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        command = [sys.executable, "-m", "koinon.trainer", "--socket", str(folder / "s"), "--temp", str(folder / "r")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--guard", "--seconds", "60"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        assert json.loads(line)["ready"]
        transport = httpx.HTTPTransport(uds=str(folder / "s"))
        self.client = httpx.Client(transport=transport, base_url="http://trainer", timeout=180)

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.client.post(path, **content)

    def prepare(self, project: str = PROJECT, **changes: Any) -> httpx.Response:
        body = {
            "project": project,
            "model": {"template": "tabular", "package": None, "layout": []},
            "contract": CONTRACT,
            "cohorts": {"all": [], "elderly": [{"column": "age", "op": ">=", "value": "60"}]},
            "dataset": str(HEART / "cleveland.csv"),
            "metrics": ["accuracy", "auc", "loss"],
            **changes,
        }
        return self.post("/v1/prepare", json=body)

    def package(self, name: str, code: str) -> str:
        """Prepares a project whose package is a zip of `code`; its layout is that of the linear model."""
        path = self.folder / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.py", code)
        layout = [tensor.model_dump(mode="json") for tensor in LAYOUT]
        model = {"template": "package", "package": "b" * 64, "layout": layout}
        response = self.prepare(name, model=model, package_path=str(path))
        assert response.status_code == 200, response.text
        return name

    def round(self, path: str, *vectors: np.ndarray[Any, Any], **changes: Any) -> httpx.Response:
        parameters = {**PARAMETERS, **changes.pop("parameters", {})}
        fields = {"project": PROJECT, "run": RUN, "round": 1, "seed": 42, "site": "cleveland", "kind": "train"}
        request = {**fields, **changes, "parameters": parameters}
        prefixes = ("model", "control", "local")[: len(vectors)]
        head = tensors.header(tensors.named(LAYOUT, *prefixes), {"request": json.dumps(request)})
        return self.post(path, content=head + b"".join(v.astype("<f4").tobytes() for v in vectors))

    def processes(self) -> dict[int, str]:
        """All processes below the server."""
        parents = {}
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(status.parent.name)] = int(fields[1])
        found: dict[int, str] = {}
        below = {self.process.pid}
        while below:
            below = {pid for pid, parent in parents.items() if parent in below}
            for pid in below:
                try:
                    found[pid] = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                except OSError:
                    continue
        return found

    def kill(self, name: str) -> None:
        pids = [pid for pid, command in self.processes().items() if name in command.partition(" ")[0]]
        assert pids, self.processes()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def running() -> Iterator[Server]:
    """A trainer, and after it the proof that it left nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="kt-", dir="/tmp"))
    server = Server(folder)
    try:
        yield server
        below = server.processes()
    finally:
        assert server.process.stdin is not None
        assert server.process.stdout is not None
        server.client.close()
        server.process.stdin.close()
        try:
            server.process.wait(timeout=60)
        finally:
            server.process.kill()
            server.process.wait()
            server.process.stdout.close()
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below)), below
    shutil.rmtree(folder)


def wait_until(condition: Any, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        response = started.prepare()
        assert response.status_code == 200, response.text
        yield started


def body(response: httpx.Response, *prefixes: str) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Report and values of an answer, its header checked as the agent checks it."""
    assert response.status_code == 200, response.text
    length = 8 + tensors.header_length(response.content)
    metadata = tensors.check_header(response.content[8:length], tensors.named(LAYOUT, *prefixes))
    return json.loads(metadata.get("report", "{}")), np.frombuffer(response.content[length:], "<f4")


def here(
    number: int = 1, vectors: dict[str, Any] | None = None, **changes: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """The same round in this process, without Ray: evaluation and vectors."""
    declared = data.contract(CONTRACT)
    rows = features.rows(data.read(HEART / "cleveland.csv", declared), declared, [])
    parameters = {**PARAMETERS, **changes}
    steps.one_thread()
    built = steps.Built(packages.template().learner, steps.Task(13, "classification", parameters), 42)
    sent = vectors or {"model": built.read()}
    scores = steps.evaluate(built, rows, sent["model"])
    return scores, steps.fit(built, rows, steps.Round.of(42, "cleveland", number, parameters), sent)[0]


def first_weights(server: Server, project: str = PROJECT) -> np.ndarray[Any, Any]:
    asked = {"project": project, "run": RUN, "seed": 42, "parameters": PARAMETERS}
    return body(server.post("/v1/init", json=asked), "model")[1]


def trouble(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """An error's body, which must have the form that may cross."""
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    wire.Trouble.of(found)
    assert found["code"] == code
    assert SECRET not in response.text
    return found


def test_it_is_ready_and_its_socket_is_private(server: Server) -> None:
    assert server.client.get("/v1/health").json() == {"ready": True}
    assert (server.folder / "s").stat().st_mode & 0o077 == 0


def test_prepare_echoes_rows_and_columns_and_may_be_repeated(server: Server) -> None:
    first = server.prepare().json()
    assert (first["train"], first["test"]) == (199, 104)
    assert first["cohorts"]["elderly"]["train"] < 199
    assert first["columns"]["age"] == {"rows": 303, "present": 303, "within": 303}
    assert server.prepare().json() == first


def test_init_fit_and_evaluate_are_the_local_steps(server: Server) -> None:
    start = first_weights(server)
    scores, local = here()
    report, update = body(server.round("/v1/fit", start), "update")
    assert np.array_equal(update, local["update"])
    assert report["evaluation"] == scores
    assert (report["rows"], report["seconds"] > 0) == (199, True)
    response = server.round("/v1/evaluate", start, kind="evaluate", round=16)
    assert response.json()["evaluation"] == scores
    assert server.round("/v1/evaluate", start, parameters={"cohort": "elderly"}).json()["evaluation"]["rows"] < 104


def test_a_repeated_round_gets_the_same_answer(server: Server) -> None:
    start = first_weights(server)
    first = server.round("/v1/fit", start, round=3).content
    assert server.round("/v1/fit", start, round=3).content == first  # report and its seconds too: from memory
    assert server.round("/v1/fit", start, round=4).content != first


def test_scaffold_through_http(server: Server) -> None:
    start, control = first_weights(server), np.linspace(-1, 1, 14).astype(np.float32)
    vectors = {"model": start, "control": control, "local": control / 3}
    _, local = here(vectors=vectors, strategy="scaffold")
    chosen = {"strategy": "scaffold"}
    _, values = body(server.round("/v1/fit", *vectors.values(), parameters=chosen), "update", "control")
    assert np.array_equal(values, np.concatenate([local["update"], local["control"]]))
    trouble(server.round("/v1/fit", start, parameters=chosen), 400, "bad_request")


def test_a_killed_worker_changes_no_byte(server: Server) -> None:
    start = first_weights(server)
    long = {"local_steps": 20_000}
    timer = threading.Timer(1.0, server.kill, ["ray::Actor"])
    timer.start()
    _, update = body(server.round("/v1/fit", start, parameters=long), "update")
    timer.join()
    _, local = here(local_steps=20_000)
    assert np.array_equal(update, local["update"])
    assert server.client.get("/v1/health").status_code == 200
    server.kill("ray::Actor")  # and between rounds
    _, again = body(server.round("/v1/fit", start, parameters={**long, "mu": "0.02"}), "update")
    assert np.array_equal(again, update)


@pytest.mark.parametrize(
    ("change", "code", "names"),
    [
        ({"dataset": "/nowhere.csv"}, "data_unreadable", []),
        ({"metrics": ["accuracy", "c-index"]}, "metric", ["c-index"]),
        ({"cohorts": {"all": [{"column": "age", "op": ">", "value": "105"}]}}, "too_few_records", []),
        ({"cohorts": {"all": [{"column": "num", "op": ">", "value": "1"}]}}, "one_class", ["num"]),
        ({"package_path": "/nowhere.zip", "model": {"template": "package"}}, "package_invalid", []),
    ],
)
def test_a_project_that_cannot_be_prepared(server: Server, change: dict[str, Any], code: str, names: list[str]) -> None:
    found = trouble(server.prepare("c" * 64, **change), 422, code)
    assert found["names"] == names
    trouble(server.round("/v1/fit", np.zeros(14), project="c" * 64), 409, "not_prepared")


def test_requests_that_are_wrong(server: Server) -> None:
    start = np.zeros(14, np.float32)
    trouble(server.post("/v1/fit", content=b"no tensors"), 400, "bad_request")
    trouble(server.post("/v1/init", json={"run": RUN, "seed": SECRET, "parameters": {}}), 400, "bad_request")
    trouble(server.round("/v1/fit", start, parameters={"cohort": "young"}), 400, "bad_request")
    trouble(server.round("/v1/fit", start, round=0), 400, "bad_request")
    found = trouble(server.round("/v1/fit", start, parameters={"architecture": "mlp"}), 422, "layout")
    assert found["shapes"] == [[1, 13], [-1, 13]]
    trouble(server.round("/v1/fit", np.full(14, np.nan)), 422, "nan_loss")


LEARNER = """
import koinon, torch

class Risk(koinon.Model):
    def build(self, inputs):
        return torch.nn.Linear(inputs, 1)

    def loss(self, model, x, y):
        return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
"""
ADAM = """
    def optimizer(self, model, learning_rate):
        return torch.optim.Adam(model.parameters(), learning_rate)
"""


def test_a_researchers_own_package_trains(server: Server) -> None:
    name = server.package("adam", LEARNER + ADAM)
    start = first_weights(server, name)
    before, update = body(server.round("/v1/fit", start, project=name), "update")
    after = server.round("/v1/evaluate", start + update, project=name, round=2).json()
    assert after["evaluation"]["loss"] < before["evaluation"]["loss"] - 0.1
    name = server.package("plain", LEARNER)
    _, update = body(server.round("/v1/fit", start, project=name), "update")
    assert np.array_equal(update, here()[1]["update"])  # the template's equal


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
    response = server.round("/v1/fit", first_weights(server, name), project=name, timeout=8)
    found = trouble(response, status, expected)
    if expected == "shape":
        assert (found["place"], found["shapes"]) == (
            "model.py:9",
            [[-1, 1], [13, 1]],
        )  # it is the test rows that fail, and their number stays here
    assert server.client.get("/v1/health").status_code == 200
    _, update = body(server.round("/v1/fit", first_weights(server), round=1), "update")
    assert np.array_equal(update, here()[1]["update"])


def test_a_package_keeps_nothing_from_one_run_to_the_next(server: Server) -> None:
    counting = LEARNER.replace("import koinon, torch", "import koinon, torch\nCALLS = []").replace(
        "        return torch.nn.Linear", "        CALLS.append(1)\n        return torch.nn.Linear"
    )
    counting = counting.replace("with_logits(model(x), y)", "with_logits(model(x), y) * len(CALLS)")
    name = server.package("counting", counting)
    start = np.zeros(14)
    losses = [
        server.round("/v1/evaluate", start, project=name, run=run, round=n).json()["evaluation"]["loss"]
        for run, n in (("run001", 1), ("run001", 2), ("run002", 1))
    ]
    assert losses[1] == pytest.approx(2 * losses[0])
    assert losses[2] == losses[0]


def test_when_ray_dies_the_trainer_says_so_by_ending() -> None:
    for name in ("gcs_server", "raylet"):
        with running() as server:
            assert server.client.get("/v1/health").status_code == 200
            server.kill(name)
            with suppress(httpx.TransportError):  # it may have ended already
                assert server.client.get("/v1/health").status_code == 503
            assert server.process.wait(timeout=30) != 0
