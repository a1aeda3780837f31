"""`/healthz`, `/readyz`, `/metrics` over plain HTTP.

Liveness is not "the process answers": watches have stalled in silence before. It is how long ago everything was read
anew.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

Answer = Callable[[], tuple[bool, dict[str, object]]]


def serve(port: int, *, live: Answer, ready: Answer, metrics: Callable[[], bytes]) -> ThreadingHTTPServer:
    """Serves in a thread until `shutdown`. Port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            if self.path == "/metrics":
                return self._send(200, metrics(), CONTENT_TYPE_PLAIN_0_0_4)
            question = {"/healthz": live, "/readyz": ready}.get(self.path)
            if question is None:
                return self._send(404, b"{}", "application/json")
            good, shown = question()
            return self._send(200 if good else 503, json.dumps(shown).encode(), "application/json")

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds; they are not worth a line each."""

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
