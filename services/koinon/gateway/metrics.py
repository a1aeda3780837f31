"""What Prometheus sees happen: requests, rounds and where their time goes, what failed. What is true now: `snapshot`.

Labels are closed sets (routes, states, parts), or bounded here: nobody from outside can make series without end.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import anyio
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from koinon.domain import refusals
from koinon.domain.errors import KoinonError
from koinon.domain.run import Kind, Phase, RoundState, RunState, is_final

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PARTS = ("train", "keys", "shares", "masked", "survivors", "unmask", "commit")
MOST_CODES = 64  # of sites' errors; further ones are counted as "other"
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800)


class Metrics:
    """One registry per hub; also the observer that the scheduler tells of its runs."""

    def __init__(self, version: str) -> None:
        self.registry = of = CollectorRegistry()
        self.scrapes = anyio.CapacityLimiter(2)  # threads of their own: uploads may hold all others
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
        self.bytes = Counter("koinon_http_bytes", "Bytes of HTTP bodies.", ["direction"], registry=of)
        self.problems = Counter("koinon_problems", "Errors told to callers, by code.", ["code"], registry=of)
        self.rounds = Counter("koinon_rounds", "Rounds that ended.", ["kind", "state"], registry=of)
        self.parts = Histogram(
            "koinon_round_part_seconds",
            "Seconds of a committed round's parts.",
            ["part"],
            buckets=_SECONDS,
            registry=of,
        )
        self.attempts = Counter(
            "koinon_attempts_failed",
            "Attempts that lost too many sites in a phase, and were made again.",
            ["phase"],
            registry=of,
        )
        self.uploaded = Counter("koinon_upload_bytes", "Bytes of verified uploads.", registry=of)
        self.ended = Counter("koinon_runs_ended", "Runs that are over.", ["state"], registry=of)
        self.troubles = Counter(
            "koinon_site_troubles", "Sites that could not, or refused to, do a phase.", ["kind", "code"], registry=of
        )
        self.failures = Counter("koinon_scheduler_failures", "Steps of runs that failed and are retried.", registry=of)
        Gauge("koinon_info", "The hub's version.", ["version"], registry=of).labels(version).set(1)
        self._codes: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        """What is known beforehand is there from the start, at 0: else a first event would be no increase."""
        for direction in ("received", "sent"):
            self.bytes.labels(direction)
        for code in ("internal", *(error.slug() for error in KoinonError.__subclasses__())):
            self.problems.labels(code)
        for kind in Kind:
            for state in (RoundState.COMMITTED, RoundState.VOID):
                self.rounds.labels(kind.value, state.value)
        for part in PARTS:
            self.parts.labels(part)
        for phase in Phase:
            if phase not in (Phase.DONE, Phase.FAILED):
                self.attempts.labels(phase.value)
        for ended in filter(is_final, RunState):
            self.ended.labels(ended.value)
        for code in refusals.CODES:
            self.troubles.labels("refusal", code)
        for kind_of in ("refusal", "error"):
            self.troubles.labels(kind_of, "other")

    def certificate(self, ends: Callable[[], float]) -> None:
        """The hub has a certificate of its own, which ends then; asked at every scrape."""
        name, text = "koinon_certificate_expiry_timestamp_seconds", "When the hub's own certificate ends."
        Gauge(name, text, registry=self.registry).set_function(ends)

    def round_ended(self, kind: str, state: str, seconds: Mapping[str, float], size: int) -> None:
        """A round committed or became void; `seconds` by part, `size` bytes uploaded."""
        self.rounds.labels(kind, state).inc()
        self.uploaded.inc(size)
        for part in PARTS:
            if part in seconds:
                self.parts.labels(part).observe(seconds[part])

    def attempt_failed(self, phase: str) -> None:
        self.attempts.labels(phase).inc()

    def run_ended(self, state: str) -> None:
        self.ended.labels(state).inc()

    def site_troubled(self, code: str, refused: bool) -> None:
        """The code is the site's own word: a hostile one can spoil this count, and no more."""
        if refused:
            self.troubles.labels("refusal", code if code in refusals.CODES else "other").inc()
            return
        if len(self._codes) < MOST_CODES:
            self._codes.add(code)
        self.troubles.labels("error", code if code in self._codes else "other").inc()

    def problem(self, code: str) -> None:
        """An error was told to a caller."""
        self.problems.labels(code).inc()

    def step_failed(self) -> None:
        self.failures.inc()

    def text(self, snapshot: Iterable[Metric]) -> bytes:
        """For Prometheus: what was counted, and what is true now."""
        found = _Scrape(self.registry, snapshot)
        return generate_latest(found)  # all it asks of a registry is `collect`


class _Scrape:
    def __init__(self, registry: CollectorRegistry, snapshot: Iterable[Metric]) -> None:
        self._registry, self._snapshot = registry, snapshot

    def collect(self) -> Iterator[Any]:
        yield from self._registry.collect()
        yield from self._snapshot


class Measured:
    """ASGI middleware: counts requests by route template, never by the address asked for."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, received, sent = time.perf_counter(), 500, 0, 0

        async def reading() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def watching(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, reading, watching)
        finally:
            metrics = self._metrics
            route = getattr(scope.get("route"), "path", "unknown")
            metrics.requests.labels(scope["method"], route, status).inc()
            metrics.latency.labels(route).observe(time.perf_counter() - begun)
            metrics.bytes.labels("received").inc(received)
            metrics.bytes.labels("sent").inc(sent)
