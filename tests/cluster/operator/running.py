"""The operator as a process of its own, with the rights of whoever runs the tests."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from koinon_operator.kinds import Object


class Running:
    """A running operator. Its log is `log`."""

    def __init__(self, hospitals: Mapping[str, str], log: Path, **settings: str) -> None:
        """`hospitals`: home → work namespace. `settings`: further variables, without their prefix."""
        self.log = log
        self.port = _free_port()
        given = {
            "KOINON_HOSPITALS": ",".join(f"{home}:{work}" for home, work in hospitals.items()),
            "KOINON_HEALTH_PORT": str(self.port),
            "KOINON_AGENT_URL": "http://127.0.0.1:9",
            "KOINON_AGENT_SECONDS": "3600",
            **{f"KOINON_{name.upper()}": value for name, value in settings.items()},
        }
        self._environment = {**os.environ, **given}
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as out:
            command = [sys.executable, "-m", "koinon_operator"]
            return subprocess.Popen(command, env=self._environment, stdout=out, stderr=subprocess.STDOUT)

    def ready(self, seconds: float = 60) -> float:
        """Waits until everything was read once. Returns how long that took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            assert self.process.poll() is None, self.log.read_text()[-4_000:]
            if self._get("/readyz")[0] == 200:
                return time.monotonic() - began
            time.sleep(0.05)
        raise AssertionError(f"not ready after {seconds} s: {self.log.read_text()[-4_000:]}")

    def health(self) -> Object:
        found: Object = json.loads(self._get("/healthz")[1])
        return found

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Samples by name and sorted labels."""
        text = self._get("/metrics")[1].decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.metrics().items() if found == name and wanted <= set(has))

    def memory(self) -> int:
        """Bytes in RAM."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1_024
        raise AssertionError("no VmRSS")

    def idle(self, seconds: float = 60, calm: float = 1.0) -> float:
        """Waits until no reconcile ran for `calm` seconds. Returns when the last one ended, after this call."""
        began, last, seen = time.monotonic(), time.monotonic(), -1.0
        while time.monotonic() - began < seconds:
            count = self.total("koinon_operator_reconcile_seconds_count")
            if count != seen or self.health()["queue"]:
                last, seen = time.monotonic(), count
            elif time.monotonic() - last >= calm:
                return max(0.0, last - began)
            time.sleep(0.1)
        raise AssertionError(f"busy for more than {seconds} s")

    def kill(self) -> None:
        """As a node that dies would."""
        self.process.kill()
        self.process.wait()

    def again(self) -> None:
        """Starts it anew after `kill`."""
        self.process = self._start()

    def stop(self, seconds: float = 20) -> int:
        self.process.terminate()
        return self.process.wait(seconds)

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return 0, b""


@contextlib.contextmanager
def running(hospitals: Mapping[str, str], log: Path, **settings: str) -> Iterator[Running]:
    operator = Running(hospitals, log, **settings)
    try:
        operator.ready()
        yield operator
    finally:
        if operator.process.poll() is None:
            operator.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
