"""A trainer in its own process, Ray and all, behind a Unix socket; and the same steps in this process, to compare."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

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
LEARNER = """
import koinon, torch

class Risk(koinon.Model):
    def build(self, inputs):
        return torch.nn.Linear(inputs, 1)

    def loss(self, model, x, y):
        return torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
"""


class Server:
    """A running trainer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        command = [sys.executable, "-m", "koinon.trainer", "--socket", str(folder / "s"), "--temp", str(folder / "r")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--guard", "--seconds", "150"],
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

    def close(self) -> None:
        """It ends with its standard input. Raises TimeoutExpired if it does not; it is killed then."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.client.close()
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

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

    def package(self, name: str, code: str, **changes: Any) -> str:
        """Prepares a project whose package is a zip of `code`; its layout is that of the linear model."""
        layout = [tensor.model_dump(mode="json") for tensor in LAYOUT]
        model = {"template": "package", "package": "b" * 64, "layout": layout}
        response = self.prepare(name, model=model, package=self.send_package(zipped(code)), **changes)
        assert response.status_code == 200, response.text
        return name

    def send_package(self, package: bytes) -> str:
        """Its hash, by which it is prepared."""
        sha256 = hashlib.sha256(package).hexdigest()
        response = self.client.put(f"/v1/packages/{sha256}", content=package)
        assert response.status_code == 204, response.text
        return sha256

    def round(self, path: str, *vectors: np.ndarray[Any, Any], **changes: Any) -> httpx.Response:
        parameters = {**PARAMETERS, **changes.pop("parameters", {})}
        fields = {"project": PROJECT, "run": RUN, "round": 1, "seed": 42, "site": "cleveland", "kind": "train"}
        request = {**fields, **changes, "parameters": parameters}
        prefixes = ("model", "control", "local")[: len(vectors)]
        head = tensors.header(tensors.named(LAYOUT, *prefixes), {"request": json.dumps(request)})
        return self.post(path, content=head + b"".join(v.astype("<f4").tobytes() for v in vectors))

    def processes(self) -> dict[int, str]:
        """All processes below the server."""
        return descendants(self.process.pid)

    def named(self, name: str) -> list[int]:
        pids = [pid for pid, command in self.processes().items() if name in command.partition(" ")[0]]
        assert pids, self.processes()
        return pids

    def kill(self, name: str) -> None:
        for pid in self.named(name):
            os.kill(pid, signal.SIGKILL)

    def worked(self, name: str) -> float:
        """Seconds that the processes of that name have computed."""
        ticks = 0
        for pid in self.named(name):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def zipped(code: str) -> bytes:
    """A package of one `model.py`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("model.py", code)
    return packed.getvalue()


def descendants(pid: int) -> dict[int, str]:
    """All processes below one, with their command lines."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found: dict[int, str] = {}
    below = {pid}
    while below:
        below = {child for child, parent in parents.items() if parent in below}
        for child in below:
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


@contextmanager
def running() -> Iterator[Server]:
    """A trainer, and after it the proof that it left nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="kt-", dir="/tmp"))
    server = Server(folder)
    try:
        yield server
        below = server.processes()
    finally:
        server.close()
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below)), below
    shutil.rmtree(folder)


@contextmanager
def prepared() -> Iterator[Server]:
    """A trainer with the heart project."""
    with running() as started:
        response = started.prepare()
        assert response.status_code == 200, response.text
        yield started


def wait_until(condition: Any, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


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
