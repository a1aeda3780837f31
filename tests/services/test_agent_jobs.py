"""The agent's client of the Jobs API against a server that lies, stalls, floods and forgets."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from koinon.agent import cluster, jobs, place
from koinon.agent.config import Kubernetes
from koinon.agent.jobs import Away, Job, Jobs
from koinon.agent.logs import Log
from koinon.agent.place import Work
from koinon.domain.errors import Unavailable
from koinon.domain.grant import Resources

TOKEN = "t" * 64
Answer = Callable[[socket.socket, str], None]


class Server:
    """Answers each connection with `answer(connection, request line)`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.heads: list[str] = []
        self.answer: Answer = lambda connection, line: reply(connection, 200, [])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                head = b""
                try:
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65_536)
                    line = head.split(b"\r\n")[0].decode().removesuffix(" HTTP/1.1")
                    self.seen.append(line)
                    self.heads.append(head.decode())
                    self.answer(connection, line)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65_536):
                        pass
                except OSError:
                    continue  # the caller has gone

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


def reply(connection: socket.socket, status: int, value: Any) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    monkeypatch.setattr(jobs, "_SECONDS", 1.0)
    made = Jobs(server.url, TOKEN)
    yield made
    made.close()


def entry(name: str, **changes: Any) -> dict[str, Any]:
    return {"submission_id": name, "status": "RUNNING", "entrypoint": "exec x", "message": None} | changes


def test_jobs_of_the_prefix_alone_and_in_the_right_form(server: Server, client: Jobs) -> None:
    odd: list[Any] = [None, 7, "koinon-a-1", entry(""), entry("koinon-a-3", status=["RUNNING"]), {"type": "DRIVER"}]
    listed = [entry("koinon-a-1"), entry("koinon-b-1"), entry("koinon-a-2", status="FAILED", message="why"), *odd]
    server.answer = lambda connection, _: reply(connection, 200, listed)
    found = client.all("koinon-a-")
    assert found == [Job("koinon-a-1", "RUNNING", "exec x", ""), Job("koinon-a-2", "FAILED", "exec x", "why")]
    assert [job.live for job in found] == [True, False]
    server.answer = lambda connection, _: reply(connection, 200, {"not": "a list"})
    assert client.all("koinon-a-") == []
    assert f"authorization: Bearer {TOKEN}".lower() in server.heads[0].lower()


def test_a_submission_that_was_taken_before_counts_once(server: Server, client: Jobs) -> None:
    server.answer = lambda connection, line: (
        reply(connection, 500, b"already exists")
        if line.startswith("POST")
        else reply(connection, 200, entry("koinon-a-1"))
    )
    client.submit("koinon-a-1", "exec x")
    assert server.seen == ["POST /api/jobs/", "GET /api/jobs/koinon-a-1"]
    server.answer = lambda connection, line: reply(connection, 500 if line.startswith("POST") else 404, b"no")
    with pytest.raises(Away, match="500"):
        client.submit("koinon-a-2", "exec x")


def test_what_is_gone_is_gone(server: Server, client: Jobs) -> None:
    server.answer = lambda connection, _: reply(connection, 404, b"does not exist")
    assert client.get("koinon-a-1") is None
    client.stop("koinon-a-1")
    client.delete("koinon-a-1")
    assert server.seen[1:] == ["POST /api/jobs/koinon-a-1/stop", "DELETE /api/jobs/koinon-a-1"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_not_taken_is_not_a_cluster_away(server: Server, client: Jobs, status: int) -> None:
    server.answer = lambda connection, _: reply(connection, status, b"no")
    with pytest.raises(Unavailable, match="token") as caught:
        client.all("koinon-")
    assert TOKEN not in str(caught.value)


def flood(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 X\r\n\r\n[")
    for _block in range(64):
        connection.sendall(b"7," * 2**19)


def drip_body(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")
    for _byte in range(100):
        connection.sendall(b"7")
        time.sleep(0.05)


def drip_head(connection: socket.socket, _: str) -> None:
    connection.sendall(b"HTTP/1.1 200 X\r\nA: ")
    for _byte in range(100):
        connection.sendall(b"7")
        time.sleep(0.05)


def hang(connection: socket.socket, _: str) -> None:
    time.sleep(3.0)


@pytest.mark.parametrize(
    "answer",
    [
        flood,
        drip_body,
        drip_head,
        hang,
        lambda connection, _: reply(connection, 200, b"no JSON"),
        lambda connection, _: reply(connection, 200, b"[" * 100_000),
        lambda connection, _: reply(connection, 200, b"\xff\xfe"),
        lambda connection, _: reply(connection, 302, b""),
        lambda connection, _: connection.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n["),
        lambda connection, _: connection.sendall(b"no HTTP\r\n\r\n"),
        lambda connection, _: None,
    ],
)
def test_whatever_it_sends_the_answer_is_away_within_bounds(server: Server, client: Jobs, answer: Answer) -> None:
    server.answer = answer
    began = time.monotonic()
    with pytest.raises(Away):
        client.all("koinon-")
    assert time.monotonic() - began < 3.0


def test_nobody_there() -> None:
    client = Jobs("http://127.0.0.1:9", TOKEN)
    with pytest.raises(Away):
        client.all("koinon-")
    client.close()


class Stream:
    """What httpx tells of a new connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self._connection


def test_a_limit_cuts_connections_that_are_there_and_that_come() -> None:
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, place.within(0.2, ended.set) as limit:
        for _ in range(2):
            with socket.create_connection(server.getsockname()) as caller:
                limit.trace("connection.connect_tcp.complete", {"return_value": Stream(caller)})
                assert caller.recv(1) == b""  # the first time after 0.2 s, from another thread
                assert limit.over.is_set()
    assert ended.wait(5)


def test_a_trainer_log_of_any_size_is_bounded(tmp_path: Path, server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    given = Kubernetes(work_namespace="w", head="127.0.0.1", trainer_port=port, jobs_port=port)
    log = Log(tmp_path / "log")
    there = cluster.Cluster(Work("0" * 64, {}, tmp_path, None, Resources()), given, log)
    assert there.told("0" * 12) == ""  # never opened: there is no token yet
    there._token = TOKEN
    server.answer = flood
    assert len(there.told("0" * 12)) == 64 * 2**10
    log.close()
