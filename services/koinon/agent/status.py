"""What an agent in Kubernetes shows within its cluster: probes, metrics, its status, the manifests it received.

GET alone, no secrets, bounded in time and in how many are answered at once. The hospital's operator, its monitoring and
kubectl koinon read it; a NetworkPolicy keeps others away.
"""

import json
import shutil
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from koinon.agent.loop import Agent
from koinon.agent.meter import STATES
from koinon.domain.errors import KoinonError
from koinon.domain.keys import fingerprint
from koinon.domain.manifest import Manifest

TURN_SECONDS = 120.0  # a turn of the loop is a poll of 25 s, and what it brings
CONTACT_SECONDS = 90.0
_AT_ONCE = 16
_SECONDS = 10.0  # a connection may take
JSON, TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"
Answer = tuple[int, str, bytes]


class Status:
    """The answers, without HTTP."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._site = agent.site
        self._site.meter.registry.register(_Gauges(self))

    # what is so now

    @property
    def turned(self) -> float:
        """Seconds since the loop's last turn."""
        return time.monotonic() - self._agent.turned

    @property
    def heard(self) -> float | None:
        """Seconds since the hub last answered a signed request."""
        heard = self._site.hub.heard
        return None if heard is None else max(0.0, self._site.clock() - heard)

    @property
    def connected(self) -> bool:
        return self.heard is not None and self.heard < CONTACT_SECONDS

    def split(self) -> tuple[dict[str, Manifest], dict[str, Manifest]]:
        """Manifests that are pending, and those that were granted, by hash."""
        book = self._site.book
        grants, revocations = book.grants, book.revocations
        known = book.manifests()
        granted = {name: manifest for name, manifest in known.items() if name in grants}
        pending = {n: manifest for n, manifest in known.items() if n not in grants and n not in revocations}
        return pending, granted

    # the routes

    def answer(self, path: str) -> Answer:
        route = unquote(urlsplit(path).path)
        if route.startswith("/v1/manifests/"):
            return self._manifest(route.removeprefix("/v1/manifests/"))
        routes = {
            "/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics, "/v1/status": self._status
        }  # fmt: skip
        return routes[route]() if route in routes else _json(404, {"error": "There is no such page."})

    def _healthz(self) -> Answer:
        good = self._agent.alive and self.turned < TURN_SECONDS
        return _json(200 if good else 503, {"ok": good, "seconds": round(self.turned, 1)})

    def _readyz(self) -> Answer:
        if self.connected:
            return _json(200, {"ready": True})
        return _json(503, {"ready": False, "why": self._agent.trouble or "The hub has not answered yet."})

    def _metrics(self) -> Answer:
        return 200, TEXT, generate_latest(self._site.meter.registry)

    def _status(self) -> Answer:
        site, agent = self._site, self._agent
        pending, granted = self.split()
        return _json(200, {
            "site": site.name,
            "version": agent.version,
            "hub": site.settings.hub,
            "fingerprint": self._fingerprint(),
            "connected": self.connected,
            "last_contact": site.hub.heard,
            "trouble": None if self.connected else agent.trouble,
            "clock_offset": round(site.hub.offset, 3),
            "epoch": site.certificate.epoch,
            "certificate_expires": site.certificate.not_after,
            "pending": [{"hash": name, "name": manifest.name} for name, manifest in pending.items()],
            "granted": [self._granted(name, manifest) for name, manifest in granted.items()],
            "runs": [
                {
                    "run": task.opening.run,
                    "project": task.opening.manifest,
                    "round": task.opening.round,
                    "attempt": task.opening.attempt,
                    "phase": task.phase,
                    "kind": task.opening.kind,
                }
                for task in agent.lanes.busy().values()
            ],
            "trainers": [{"project": name, "state": state} for name, state in agent.trainers.states().items()],
            "last_round": agent.last_round,
        })  # fmt: skip

    def _fingerprint(self) -> str | None:
        try:
            return fingerprint(self._site.folder.root_public.read_text().strip())
        except OSError:
            return None

    def _granted(self, name: str, manifest: Manifest) -> dict[str, Any]:
        grant, refused = self._site.book.grants[name], None
        try:
            self._site.book.project(name, self._site.clock())
        except KoinonError as error:
            refused = getattr(error, "code", error.slug())
        return {
            "hash": name, "name": manifest.name, "dataset": grant.dataset, "expires": grant.expires, "refused": refused
        }  # fmt: skip

    def _manifest(self, asked: str) -> Answer:
        known = self._site.book.manifests()
        found = [asked] if asked in known else [name for name, manifest in known.items() if manifest.name == asked]
        if len(found) == 1:
            return 200, JSON, known[found[0]].encode()
        if found:
            return _json(409, {"error": "Several projects have this name.", "hashes": found})
        return _json(404, {"error": "This site has received no such project."})

    def values(self) -> dict[str, tuple[str, float]]:
        """Gauges: name → what it is, value."""
        site = self._site
        pending, _ = self.split()
        now = site.clock()
        return {
            "connected": ("1 if the hub answered a signed request lately.", float(self.connected)),
            "hub_contact_age_seconds": (
                "Seconds since the hub last answered a signed request; +Inf if it never did.",
                float("inf") if self.heard is None else self.heard,
            ),
            "clock_offset_seconds": ("This clock less the hub's.", site.hub.offset),
            "loop_age_seconds": ("Seconds since the loop's last turn.", self.turned),
            "certificate_expiry_timestamp_seconds": ("When the certificate ends.", site.certificate.not_after),
            "disk_free_bytes": ("Free bytes of the site's folder.", shutil.disk_usage(site.folder.path).free),
            "pending_projects": ("Projects that name this site and are not granted.", len(pending)),
            "granted_projects": ("Projects that may run here now.", len(site.book.granted(now))),
        }  # fmt: skip

    def trainers(self) -> dict[str, int]:
        states = list(self._agent.trainers.states().values())
        return {state: states.count(state) for state in STATES}

    @property
    def traffic(self) -> dict[str, int]:
        return {"sent": self._site.hub.sent, "received": self._site.hub.received}

    @property
    def version(self) -> str:
        return self._agent.version


class _Gauges(Collector):
    """What is read when Prometheus asks, rather than counted as it happens."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Any]:
        info = GaugeMetricFamily("koinon_agent_info", "The agent's version.", labels=["version"])
        info.add_metric([self._status.version], 1)
        yield info
        for name, (text, value) in self._status.values().items():
            yield GaugeMetricFamily(f"koinon_agent_{name}", text, value=value)
        trainers = GaugeMetricFamily("koinon_agent_trainers", "Trainers of granted projects.", labels=["state"])
        for state, number in self._status.trainers().items():
            trainers.add_metric([state], number)
        yield trainers
        traffic = CounterMetricFamily("koinon_agent_hub_bytes", "Bytes to and from the hub.", labels=["direction"])
        for direction, number in self._status.traffic.items():
            traffic.add_metric([direction], number)
        yield traffic


def _json(status: int, value: Any) -> Answer:
    return status, JSON, json.dumps(value).encode()


class Server:
    """Serves until it is closed."""

    def __init__(self, agent: Agent, address: str) -> None:
        status, slots = Status(agent), BoundedSemaphore(_AT_ONCE)

        class Handler(BaseHTTPRequestHandler):
            timeout = _SECONDS

            def do_GET(self) -> None:
                try:
                    code, kind, body = status.answer(self.path)
                except Exception as error:
                    agent.site.log.event("status-failed", path=self.path[:200], error=type(error).__name__)
                    code, kind, body = _json(500, {"error": "This page failed; the agent's log says why."})
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Probes are not news."""

        class Bounded(ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request: Any, client_address: Any) -> None:
                if slots.acquire(blocking=False):
                    super().process_request(request, client_address)
                else:
                    self.shutdown_request(request)

            def process_request_thread(self, request: Any, client_address: Any) -> None:
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    slots.release()

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A caller that went away."""

        host, _, port = address.rpartition(":")
        self._server = Bounded((host.strip("[]"), int(port)), Handler)
        self.port = self._server.server_port
        Thread(target=self._server.serve_forever, args=(0.2,), name="status", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
