"""A real Prometheus on this machine, and what tests ask of one, wherever it runs."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from charts.monitoring.queries import Asked, metrics
from tests.cluster.monitoring.prometheus_program import program
from tests.services import ports
from tests.services.hubs import wait_for

SCRAPE_SECONDS = 1


class Prometheus:
    """The HTTP API of the one at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30, trust_env=False)
        body = answer.json()
        assert body["status"] == "success", f"{parameters}: {body.get('error')}"
        return body["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query, now."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def over(self, expr: str, seconds: float, step: float = 5.0) -> list[dict[str, Any]]:
        """The series of `expr` in the last so many seconds."""
        now = time.time()
        times = {"start": f"{now - seconds}", "end": f"{now}", "step": f"{step}"}
        found: list[dict[str, Any]] = self.get("query_range", query=expr, **times)["result"]
        return found

    def names(self) -> set[str]:
        """Of all metrics that it holds."""
        return set(self.get("label/__name__/values"))

    def unhealthy(self) -> dict[str, str]:
        """Targets that it could not scrape, with the reason."""
        active = self.get("targets", state="active")["activeTargets"]
        return {target["scrapeUrl"]: target["lastError"] for target in active if target["health"] != "up"}

    def silent(self, asked: Sequence[Asked], seconds: float = 3_600) -> list[str]:
        """Those queries that no point in the last so many seconds gave a series."""
        return [f"{one.where}: {one.expr}" for one in asked if not _numbers(self.over(one.expr, seconds))]

    def unknown(self, asked: Sequence[Asked]) -> set[str]:
        """Metrics that the queries read and this Prometheus never saw."""
        return set().union(*(metrics(one.expr) for one in asked)) - self.names()


def _numbers(series: Sequence[Mapping[str, Any]]) -> bool:
    """Is there any point that is a number? A quotient of nothing is none."""
    return any(value != "NaN" for one in series for _, value in one["values"])


@contextlib.contextmanager
def running(folder: Path, jobs: Mapping[str, Sequence[str]], rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the jobs' addresses (host:port) every second, with those rule files."""
    port = ports.free()
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(path.absolute()) for path in rules],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(targets)}]} for job, targets in jobs.items()
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command = [str(program("prometheus")), *options, f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    found = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: process.poll() is not None or _answers(found), 60, "Prometheus")
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        yield found
    finally:
        process.terminate()
        process.wait(30)


def _answers(found: Prometheus) -> bool:
    try:
        return httpx.get(f"{found.url}/-/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
