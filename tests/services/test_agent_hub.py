"""The agent's HTTP client against a real server that drops connections, restarts, lies and repeats itself."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from koinon.agent.hub import Hub
from koinon.domain import httpsig, wire
from koinon.domain.errors import Conflict, Invalid, TooLarge, Unauthenticated, Unavailable, Untrusted
from koinon.domain.keys import SigningKey
from tests.unit.agent.openings import opening
from tests.unit.domain import manifests

KEY = SigningKey(b"k" * 32)
OPENING = opening(manifests.build())
BLOB = bytes(range(256)) * 8_192  # 2 MiB


class Server:
    """Answers with `answer(handler, body)`; keeps what came as (method, path, body)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.answer: Callable[[Any, bytes], None] = lambda handler, body: reply(handler, 200, {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.seen.append((self.command, self.path, body))
                url = f"http://hub{self.path}"
                verified = httpsig.verify(self.command, url, dict(self.headers), lambda _: KEY.public, now=time.time())
                assert verified.digest == httpsig.content_digest(hashlib.sha256(body).digest())
                assert self.headers["Koinon-Protocol"] == str(wire.PROTOCOL)
                outer.answer(self, body)

            do_GET = do_POST = do_PUT = handle_any  # noqa: N815 -- the library's names

            def log_message(self, format: str, *arguments: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def reply(handler: Any, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    handler.send_response(status)
    for name, text in ({"Content-Length": str(len(body))} | (headers or {})).items():
        handler.send_header(name, text)
    handler.end_headers()
    handler.wfile.write(body)


def drop(handler: Any) -> None:
    handler.close_connection = True
    handler.connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def hub(server: Server, stop: threading.Event) -> Iterator[Hub]:
    made = Hub(server.url, "lyon", KEY, stop=stop)
    yield made
    made.close()


def soon() -> float:
    return time.time() + 20


def test_a_bundle_is_sent_again_byte_for_byte_until_it_is_taken(server: Server, hub: Hub) -> None:
    def answer(handler: Any, body: bytes) -> None:
        if len(server.seen) == 1:
            drop(handler)
        elif len(server.seen) == 2:
            reply(handler, 503, {"code": "unavailable"})
        else:
            reply(handler, 200, {"result": "accepted"})

    server.answer = answer
    assert hub.send("keys", OPENING, b'{"a": 1}', until=soon(), seconds="train:1.0") == "accepted"
    assert len(server.seen) == 3
    assert len({(path, body) for _, path, body in server.seen}) == 1


def test_a_problem_document_becomes_its_error_and_is_not_repeated(server: Server, hub: Hub) -> None:
    problem = {"code": "conflict", "detail": "another one is here", "where": "phase", "todo": "stop"}
    server.answer = lambda handler, body: reply(handler, 409, problem)
    with pytest.raises(Conflict, match="another one is here"):
        hub.send("keys", OPENING, b"{}", until=soon())
    server.answer = lambda handler, body: reply(handler, 401, b"<html>")
    with pytest.raises(Unauthenticated):
        hub.send("keys", OPENING, b"{}", until=soon())
    assert len(server.seen) == 2


def test_waiting_ends_with_the_deadline_and_with_the_agent(server: Server, hub: Hub, stop: threading.Event) -> None:
    server.answer = lambda handler, body: drop(handler)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        hub.send("keys", OPENING, b"{}", until=time.time() + 0.5)
    assert time.monotonic() - began < 30
    began = time.monotonic()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Unavailable):
        hub.send("keys", OPENING, b"{}", until=time.time() + 600)
    assert time.monotonic() - began < 60  # of 600


def test_a_download_goes_on_where_the_connection_ended(server: Server, hub: Hub, tmp_path: Path) -> None:
    starts: list[int] = []

    def answer(handler: Any, body: bytes) -> None:
        given = handler.headers.get("Range", "bytes=0-")
        start = int(given.removeprefix("bytes=").rstrip("-"))
        starts.append(start)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(BLOB) - start))
        handler.end_headers()
        end = min(len(BLOB), start + 900_000)
        handler.wfile.write(BLOB[start:end])
        handler.wfile.flush()
        if end < len(BLOB):
            drop(handler)

    server.answer = answer
    name = hashlib.sha256(BLOB).hexdigest()
    hub.download("/v1/x", tmp_path / "out", name, limit=len(BLOB), until=soon())
    assert (tmp_path / "out").read_bytes() == BLOB
    assert starts[0] == 0
    assert len(starts) > 1
    assert starts[1] > 0
    assert starts == sorted(starts)


def test_other_bytes_and_more_bytes_are_refused_and_leave_nothing(server: Server, hub: Hub, tmp_path: Path) -> None:
    server.answer = lambda handler, body: reply(handler, 200, BLOB)
    with pytest.raises(Untrusted):
        hub.download("/v1/x", tmp_path / "out", "0" * 64, limit=len(BLOB), until=soon())
    with pytest.raises(TooLarge):
        hub.download("/v1/x", tmp_path / "out", "0" * 64, limit=len(BLOB) - 1, until=soon())
    assert list(tmp_path.iterdir()) == []


def test_only_missing_parts_are_uploaded(
    server: Server, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "PART_BYTES", 1_000_000)
    (tmp_path / "masked").write_bytes(BLOB)

    def answer(handler: Any, body: bytes) -> None:
        if handler.command == "GET":
            reply(handler, 200, {"size": len(BLOB), "part_bytes": 1_000_000, "parts": [1]})
        else:
            reply(handler, 204, b"")

    server.answer = answer
    hub.upload(OPENING, tmp_path / "masked", until=soon())
    sent = {path.rpartition("/")[2]: body for method, path, body in server.seen if method == "PUT"}
    assert sent == {"0": BLOB[:1_000_000], "2": BLOB[2_000_000:]}


@pytest.mark.parametrize("answer", [b"[]", b"{", b'{"cursor": "x"}', b'{"cursor": 1, "tasks": [{"opening": 1}]}'])
def test_a_hub_that_answers_nonsense_is_an_error(server: Server, hub: Hub, answer: bytes) -> None:
    server.answer = lambda handler, body: reply(handler, 200, answer)
    with pytest.raises((Untrusted, Invalid)):
        hub.poll(0, wire.SiteStatus(version="0"), wait=0)


def test_the_clocks_difference_is_noted(server: Server, hub: Hub) -> None:
    def answer(handler: Any, body: bytes) -> None:
        handler.date_time_string = lambda timestamp=None: "Mon, 01 Jan 2024 00:00:00 GMT"
        reply(handler, 200, {"result": "accepted"})

    server.answer = answer
    hub.send("keys", OPENING, b"{}", until=soon())
    assert hub.offset > 86_400


@pytest.mark.parametrize("written", ["when it began", "when it ended"])
def test_a_long_poll_is_no_difference_of_clocks(server: Server, hub: Hub, written: str) -> None:
    def answer(handler: Any, body: bytes) -> None:
        began = time.time()
        time.sleep(4.5)
        date = handler.date_time_string(began if written == "when it began" else None)
        handler.date_time_string = lambda timestamp=None: date
        reply(handler, 200, {"cursor": 1, "tasks": []})

    server.answer = answer
    hub.poll(0, wire.SiteStatus(version="0"), wait=4.5)
    assert hub.offset == 0
