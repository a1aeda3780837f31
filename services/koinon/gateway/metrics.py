"""What Prometheus sees: requests, runs, rounds and where their time goes, sites, the scheduler's health.

Labels are closed sets (routes, states, parts): no run, site or project makes a series of its own.
"""

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PARTS = ("train", "keys", "shares", "masked", "survivors", "unmask", "commit")
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800)


class Metrics:
    """One registry per hub; also the observer that the scheduler tells of its rounds."""

    def __init__(self, version: str) -> None:
        self.registry = of = CollectorRegistry()
        self.requests = Counter(
            "koinon_http_requests", "HTTP requests answered.", ["method", "route", "status"], registry=of
        )
        self.latency = Histogram(
            "koinon_http_request_seconds",
            "Seconds to answer (long-polls wait on purpose).",
            ["route"],
            buckets=_SECONDS,
            registry=of,
        )
        self.rounds = Counter("koinon_rounds", "Rounds that ended.", ["kind", "state"], registry=of)
        self.parts = Histogram(
            "koinon_round_part_seconds",
            "Seconds of a committed round's parts.",
            ["part"],
            buckets=_SECONDS,
            registry=of,
        )
        self.uploaded = Counter("koinon_upload_bytes", "Bytes of verified uploads.", registry=of)
        self.runs = Gauge("koinon_runs", "Runs that are not over.", ["state"], registry=of)
        self.sites = Gauge("koinon_sites", "Enrolled sites.", ["state"], registry=of)
        self.failures = Counter("koinon_scheduler_failures", "Steps of runs that failed and are retried.", registry=of)
        self.retrying = Gauge("koinon_scheduler_retrying", "Runs whose next step is being tried again.", registry=of)
        Gauge("koinon_info", "The hub's version.", ["version"], registry=of).labels(version).set(1)

    def round_ended(self, kind: str, state: str, seconds: Mapping[str, float], size: int) -> None:
        """A round committed or became void; `seconds` by part, `size` bytes uploaded."""
        self.rounds.labels(kind, state).inc()
        self.uploaded.inc(size)
        for part in PARTS:
            if part in seconds:
                self.parts.labels(part).observe(seconds[part])

    def step_failed(self) -> None:
        self.failures.inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware: counts requests by route template, never by the address asked for."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(scope["method"], route, status).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - begun)
