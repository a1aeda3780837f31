"""Problem documents, repeats, streams: against a real HTTP server on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from koinon.client import http
from koinon.client.http import Connection
from koinon.domain import errors


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str]]]
    failures: int

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        type(self).seen.append((self.command, self.path, dict(self.headers)))
        if self.path.startswith("/flaky") and type(self).failures > 0:
            type(self).failures -= 1
            self._send(503, {"code": "unavailable", "detail": "The database is away."})
        elif self.path == "/refused":
            body = {"code": "forbidden", "detail": "No.", "where": "run", "todo": "Ask its owner."}
            self._send(403, body, kind="application/problem+json")
        elif self.path == "/odd":
            self._send(418, None)
        elif self.path.startswith("/events"):
            self._events()
        else:
            self._send(200, {"ok": True})

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def _send(self, status: int, body: object, kind: str = "application/json") -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _events(self) -> None:
        text = b': hello\n\nid: 1\nevent: a\ndata: {"seq": 1,\ndata: "kind": "a"}\n\ndata: {"seq": 2}\n\n'
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    _Handler.seen, _Handler.failures = [], 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.fixture
def connection(server: str) -> Iterator[Connection]:
    found = Connection(server, "secret-token")
    yield found
    found.close()


def test_problem_documents_become_errors(connection: Connection) -> None:
    with pytest.raises(errors.Forbidden) as caught:
        connection.get("/refused")
    assert (caught.value.what, caught.value.where, caught.value.todo) == ("No.", "run", "Ask its owner.")
    assert caught.value.exit_code == 3


def test_answer_that_is_no_problem_document_still_says_where(connection: Connection) -> None:
    with pytest.raises(errors.KoinonError) as caught:
        connection.get("/odd")
    assert "418" in str(caught.value)
    assert "GET /odd" in str(caught.value)


def test_calls_are_repeated_with_the_same_key(connection: Connection) -> None:
    _Handler.failures = 2
    connection.post("/flaky", {}, key="k1")
    keys = [headers["Idempotency-Key"] for _, path, headers in _Handler.seen if path == "/flaky"]
    assert keys == ["k1", "k1", "k1"]


def test_repeats_end(connection: Connection) -> None:
    _Handler.failures = 100
    with pytest.raises(errors.Unavailable, match="database is away"):
        connection.get("/flaky")
    assert len(_Handler.seen) == http.ATTEMPTS


def test_hub_that_is_away_is_named() -> None:
    connection = Connection("http://127.0.0.1:9", "t")
    with pytest.raises(errors.Unavailable, match="cannot be reached") as caught:
        connection.get("/v1/hub")
    assert caught.value.where == "http://127.0.0.1:9"
    connection.close()


def test_events_are_parsed_and_resumed(connection: Connection) -> None:
    found = list(connection.events("/events", after=7))
    assert found == [{}, {"seq": 1, "kind": "a"}, {"seq": 2}]
    _, path, headers = _Handler.seen[-1]
    assert path == "/events?after=7"
    assert headers["Last-Event-ID"] == "7"


def test_token_is_sent_and_never_shown(connection: Connection) -> None:
    connection.get("/fine")
    assert _Handler.seen[-1][2]["Authorization"] == "Bearer secret-token"
    assert "secret-token" not in repr(connection) + repr(vars(connection))


@pytest.mark.parametrize("url", ["http://hub.example.org", "http://10.0.0.1:80"])
def test_token_never_goes_over_plain_http(url: str) -> None:
    with pytest.raises(errors.Invalid, match="Plain http"):
        Connection(url, "t")


@pytest.mark.parametrize("url", ["ftp://x", "hub.example.org", "https://"])
def test_addresses_are_checked(url: str) -> None:
    with pytest.raises(errors.Invalid, match="not the address"):
        Connection(url)


@pytest.mark.parametrize("url", ["https://hub.example.org/", "http://localhost:1/", "http://[::1]:8/"])
def test_good_addresses(url: str) -> None:
    assert http.check_url(url) == url.rstrip("/")
