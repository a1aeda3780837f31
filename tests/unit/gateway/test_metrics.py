"""What Prometheus gets from the hub's counters, and that nobody can make series without end."""

import ast
import asyncio
import threading
import time
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily

from koinon.agent import policy
from koinon.agent.meter import Meter
from koinon.domain import refusals
from koinon.domain.errors import KoinonError, Refused, Unavailable
from koinon.gateway.metrics import MOST_CODES, PARTS, Measured, Metrics
from koinon.gateway.probes import Probes


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    found: float | None = metrics.registry.get_sample_value(name, labels)
    return found


def test_a_first_event_is_an_increase() -> None:
    metrics = Metrics("1")
    assert value(metrics, "koinon_rounds_total", kind="train", state="void") == 0
    assert value(metrics, "koinon_runs_ended_total", state="failed") == 0
    assert value(metrics, "koinon_attempts_failed_total", phase="masked") == 0
    for error in KoinonError.__subclasses__():
        assert value(metrics, "koinon_problems_total", code=error.slug()) == 0


def test_what_the_scheduler_tells_is_counted() -> None:
    metrics = Metrics("1")
    metrics.round_ended("train", "committed", {"train": 2.0, "lyon.train": 9.0, "commit": 0.5}, 1_000)
    metrics.attempt_failed("keys")
    metrics.run_ended("failed")
    metrics.site_troubled("no_grant", refused=True)
    metrics.site_troubled("nan_loss", refused=False)
    metrics.problem("conflict")
    metrics.step_failed()
    assert value(metrics, "koinon_rounds_total", kind="train", state="committed") == 1
    assert value(metrics, "koinon_round_part_seconds_sum", part="train") == 2
    assert value(metrics, "koinon_round_part_seconds_count", part="masked") == 0
    assert value(metrics, "koinon_upload_bytes_total") == 1_000
    assert value(metrics, "koinon_attempts_failed_total", phase="keys") == 1
    assert value(metrics, "koinon_runs_ended_total", state="failed") == 1
    assert value(metrics, "koinon_site_troubles_total", kind="refusal", code="no_grant") == 1
    assert value(metrics, "koinon_site_troubles_total", kind="error", code="nan_loss") == 1
    assert value(metrics, "koinon_problems_total", code="conflict") == 1
    assert value(metrics, "koinon_scheduler_failures_total") == 1


def test_no_site_is_a_label_of_a_rounds_time() -> None:
    """The split by site is `koinon run show --timing`; here it would be a series for each of 300 sites and 7 parts."""
    metrics = Metrics("1")
    metrics.round_ended("train", "committed", {"lyon.train": 9.0, "train": 1.0}, 0)
    assert "lyon" not in metrics.text(()).decode()
    assert metrics.text(()).decode().count("koinon_round_part_seconds_sum{") == len(PARTS)


def test_codes_that_a_hostile_site_makes_up_are_bounded() -> None:
    metrics = Metrics("1")
    for index in range(10 * MOST_CODES):
        metrics.site_troubled(f"code_{index}", refused=False)
        metrics.site_troubled(f"code_{index}", refused=True)
    text = metrics.text(()).decode()
    assert text.count('\nkoinon_site_troubles_total{code="code_') == MOST_CODES
    assert value(metrics, "koinon_site_troubles_total", kind="error", code="other") == 9 * MOST_CODES
    assert value(metrics, "koinon_site_troubles_total", kind="refusal", code="other") == 10 * MOST_CODES


def test_every_refusal_of_an_agent_is_known_from_the_start() -> None:
    """Else the first of its kind would be no increase, and raise no alert."""
    metrics = Metrics("1")
    said = set().union(*(codes(path) for path in Path(policy.__file__).parent.glob("*.py")))
    assert {"no_grant", "grant_expired", "disk_full"} <= said
    assert said | {Refused.slug()} == refusals.CODES
    for code in said:
        assert value(metrics, "koinon_site_troubles_total", kind="refusal", code=code) == 0
        assert Meter().registry.get_sample_value("koinon_agent_refusals_total", {"code": code}) == 0


def codes(path: Path) -> set[str]:
    """All that stand in a module as codes of a Refusal: written there, or in a variable `code` that goes into one."""
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _name(node.func) == "Refusal"]
    sources: list[ast.expr] = [call.args[0] for call in calls]
    if any(isinstance(source, ast.Name) for source in sources):
        assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        sources += [node.value for node in assigned if _name(node.targets[0]) == "code"]
    constants = [node.value for source in sources for node in ast.walk(source) if isinstance(node, ast.Constant)]
    return {constant for constant in constants if isinstance(constant, str)}


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def test_a_scrape_shows_what_was_counted_and_what_is_true_now() -> None:
    metrics = Metrics("1")
    text = metrics.text([GaugeMetricFamily("koinon_now", "Now.", value=7)]).decode()
    assert "koinon_now 7.0" in text
    assert "koinon_scheduler_failures_total 0.0" in text
    assert "koinon_now" not in metrics.text(()).decode()


def test_bytes_of_bodies_are_counted_both_ways() -> None:
    metrics = Metrics("1")

    async def app(scope: object, receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        await send({"type": "http.response.start", "status": 200})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"12345"})  # type: ignore[operator]

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"123"}

    async def send(message: object) -> None:
        return

    scope = {"type": "http", "method": "PUT"}
    asyncio.run(Measured(app, metrics)(scope, receive, send))
    assert value(metrics, "koinon_http_bytes_total", direction="received") == 3
    assert value(metrics, "koinon_http_bytes_total", direction="sent") == 5
    assert value(metrics, "koinon_http_requests_total", method="PUT", route="unknown", status="200") == 1


def test_a_part_that_hangs_is_named_in_time_and_holds_up_no_other() -> None:
    release = threading.Event()
    calls = []

    def hangs() -> None:
        calls.append(1)
        release.wait(30)

    def away() -> None:
        raise Unavailable("The store is away.")

    def full() -> None:
        raise OSError(28, "No space left on device")

    async def look() -> None:
        probes = Probes({"database": hangs, "artifacts": away, "disk": full, "well": lambda: None})
        begun = time.monotonic()
        found = await probes.look(0.3)
        again = await probes.look(0.1)
        assert time.monotonic() - begun < 10
        assert not found["database"].ok
        assert "not answered" in found["database"].text
        assert again["database"].seconds > found["database"].seconds >= 0.3
        assert found["artifacts"].text == "The store is away."
        assert found["disk"].text == "OSError: No space left on device"
        assert found["well"].ok
        assert calls == [1]  # it is not asked again while it hangs
        release.set()
        assert (await probes.look(5.0))["database"].ok

    asyncio.run(look())
