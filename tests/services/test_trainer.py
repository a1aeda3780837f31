"""The trainer as it runs in a hospital: what it answers, and that it is what the steps alone would give."""

import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.services import trainers
from tests.services.trainers import LEARNER, RUN, SECRET, Server, body, first_weights, here, trouble

ADAM = """
    def optimizer(self, model, learning_rate):
        return torch.optim.Adam(model.parameters(), learning_rate)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with trainers.prepared() as started:
        yield started


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


@pytest.mark.parametrize(
    ("change", "code", "names"),
    [
        ({"dataset": "/nowhere.csv"}, "data_unreadable", []),
        ({"metrics": ["accuracy", "c-index"]}, "metric", ["c-index"]),
        ({"cohorts": {"all": [{"column": "age", "op": ">", "value": "105"}]}}, "too_few_records", []),
        ({"cohorts": {"all": [{"column": "num", "op": ">", "value": "1"}]}}, "one_class", ["num"]),
    ],
)
def test_a_project_that_cannot_be_prepared(server: Server, change: dict[str, Any], code: str, names: list[str]) -> None:
    found = trouble(server.prepare("c" * 64, **change), 422, code)
    assert found["names"] == names
    trouble(server.round("/v1/fit", np.zeros(14), project="c" * 64), 409, "not_prepared")


def test_packages_that_cannot_be_prepared(server: Server) -> None:
    asked = {"model": {"template": "package"}}
    trouble(server.prepare("c" * 64, **asked), 400, "bad_request")
    trouble(server.prepare("c" * 64, **asked, package="d" * 64), 409, "not_prepared")
    trouble(server.prepare("c" * 64, **asked, package=server.send_package(b"no zip")), 422, "package_invalid")


def test_a_package_is_kept_only_under_its_own_hash(server: Server) -> None:
    name, package = "0" * 64, b"any bytes"
    trouble(server.client.put(f"/v1/packages/{name}", content=package), 422, "package_invalid")
    trouble(server.prepare("c" * 64, model={"template": "package"}, package=name), 409, "not_prepared")
    for odd in ("..%2f..%2fetc%2fpasswd", "A" * 64, "0" * 63):
        assert server.client.put(f"/v1/packages/{odd}", content=package).status_code in (404, 422)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(server.folder / "s"))
        caller.sendall(f"PUT /v1/packages/{name} HTTP/1.1\r\nHost: trainer\r\n".encode())
        caller.sendall(f"Content-Length: {100 * 2**20 + 1}\r\n\r\n".encode())
        assert caller.recv(64).startswith(b"HTTP/1.1 413 ")
    assert not list((server.folder / "r" / "packages").glob("*.part"))


def test_requests_that_are_wrong(server: Server) -> None:
    start = np.zeros(14, np.float32)
    trouble(server.post("/v1/fit", content=b"no tensors"), 400, "bad_request")
    trouble(server.post("/v1/init", json={"run": RUN, "seed": SECRET, "parameters": {}}), 400, "bad_request")
    trouble(server.round("/v1/fit", start, parameters={"cohort": "young"}), 400, "bad_request")
    trouble(server.round("/v1/fit", start, round=0), 400, "bad_request")
    found = trouble(server.round("/v1/fit", start, parameters={"architecture": "mlp"}), 422, "layout")
    assert found["shapes"] == [[1, 13], [-1, 13]]
    trouble(server.round("/v1/fit", np.full(14, np.nan)), 422, "nan_loss")


def test_a_researchers_own_package_trains(server: Server) -> None:
    name = server.package("adam", LEARNER + ADAM)
    start = first_weights(server, name)
    before, update = body(server.round("/v1/fit", start, project=name), "update")
    after = server.round("/v1/evaluate", start + update, project=name, round=2).json()
    assert after["evaluation"]["loss"] < before["evaluation"]["loss"] - 0.1
    name = server.package("plain", LEARNER)
    _, update = body(server.round("/v1/fit", start, project=name), "update")
    assert np.array_equal(update, here()[1]["update"])  # the template's equal


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
