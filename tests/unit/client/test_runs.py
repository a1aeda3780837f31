"""A run is watched to its end while its hub comes and goes: against a real HTTP server on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from koinon.client import http, runs
from koinon.client.http import Connection
from koinon.client.hub import Hub
from koinon.client.runs import Run
from koinon.domain import errors
from koinon.domain.manifest import Manifest
from tests.unit.domain import manifests

EVENTS = [
    {"seq": 1, "kind": "round.opened", "time": 1_000, "data": {"round": 1, "kind": "train"}},
    {"seq": 2, "kind": "run.completed", "time": 2_000, "data": {}},
]


class _Hub(BaseHTTPRequestHandler):
    """Its stream ends after the first event; then it is away for `failures` answers of `status`."""

    protocol_version = "HTTP/1.1"
    failures: int
    status: int

    def do_GET(self) -> None:
        streams = "text/event-stream" in self.headers["Accept"]
        if streams and type(self).failures > 0:
            self._send(200, f"data: {json.dumps(EVENTS[0])}\n\n".encode())
        elif type(self).failures > 0:
            type(self).failures -= 1
            self._send(type(self).status, b"")
        elif streams:
            self._send(200, f"data: {json.dumps(EVENTS[1])}\n\n".encode())
        elif self.path.startswith("/v1/runs/r/events"):
            self._send(200, json.dumps({"events": EVENTS}).encode())
        else:
            self._send(200, json.dumps({"id": "r", "state": "completed"}).encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(http, "pause", lambda attempt: 0.001)
    monkeypatch.setattr(runs, "pause", lambda attempt: 0.001)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        connection = Connection(f"http://127.0.0.1:{server.server_port}", "t")
        found = Run(Hub(connection), {"id": "r", "state": "running"})
        found._manifest = Manifest.of(manifests.values())
        yield found
        connection.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [502, 503, 504], ids=["a proxy alone", "its database away", "a proxy gave up"])
def test_watching_outlasts_a_hub_that_is_away(run: Run, status: int) -> None:
    _Hub.failures, _Hub.status = 20, status
    assert list(run.watch(30)) == []
    assert run.state == "completed"


def test_watching_gives_up_in_the_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _Hub.failures, _Hub.status = 10**6, 503
    monkeypatch.setattr(runs, "_REFUSALS", 5)
    with pytest.raises(errors.Unavailable):
        list(run.watch())
