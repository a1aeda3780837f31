"""A project's Ray head with its Jobs API on this machine, as KubeRay keeps one: started again with ports and token."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from koinon.agent import cluster
from koinon.agent.config import Kubernetes
from tests.services import ports
from tests.services.trainers import descendants, wait_until


class Head:
    """`start`, `kill`; `given` is what a site's settings say of it."""

    def __init__(self, folder: Path, project: str) -> None:
        self.folder = folder
        secret = folder / "secret"
        secret.write_bytes(os.urandom(32))
        self._gcs = ports.free()
        self.given = Kubernetes(
            work_namespace="lyon-work",
            head="127.0.0.1",
            jobs_port=ports.free(),
            trainer_port=ports.free(),
            ray_secret=str(secret),
        )
        self.token = cluster.token(secret, project)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the Jobs API answers, as the readiness of a head's pod."""
        fresh = tempfile.mkdtemp(prefix="r", dir=self.folder)
        options = {
            "--port": self._gcs,
            "--dashboard-host": "127.0.0.1",
            "--dashboard-port": self.given.jobs_port,
            "--dashboard-agent-listen-port": ports.free(),
            "--ray-client-server-port": ports.free(),
            "--num-cpus": 1,
            "--num-gpus": 0,
            "--object-store-memory": 200_000_000,
            "--temp-dir": fresh,
        }
        words = [str(word) for option in options.items() for word in option]
        with (self.folder / "head.log").open("ab") as log:
            self._process = subprocess.Popen(
                [f"{Path(sys.executable).parent}/ray", "start", "--head", "--block", "--disable-usage-stats",
                 "--include-log-monitor=false", *words],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment(), cwd=fresh,
            )  # fmt: skip
        assert wait_until(self._answers, 90), (self.folder / "head.log").read_text()

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_register_timeout_seconds": "180",
            "DASHBOARD_METRIC_PORT": str(ports.free()),
            "AUTOSCALER_METRIC_PORT": str(ports.free()),
        }

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "head.log").read_text()
        with suppress(httpx.TransportError):
            return self.jobs().status_code == 200
        return False

    def jobs(self, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.get(f"http://127.0.0.1:{self.given.jobs_port}/api/jobs/", headers=headers, trust_env=False)

    def states(self) -> dict[str, str]:
        """Job → status."""
        return {job["submission_id"]: job["status"] for job in self.jobs().json() if job["submission_id"]}

    def processes(self) -> dict[int, str]:
        """All of the pod, those that made themselves children of the machine included."""
        assert self._process is not None
        found = {self._process.pid: "ray start", **descendants(self._process.pid)}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"HOME={self.folder}\0" in (entry / "environ").read_text():
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found

    def named(self, name: str) -> list[int]:
        return [pid for pid, command in self.processes().items() if name in command]

    def kill(self) -> None:
        """As a pod goes whose node was switched off."""
        before = self.processes()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # first so that none sees another die and starts a third
            for pid in before:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        assert self._process is not None
        self._process.wait()
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before)), before


@contextmanager
def running(project: str) -> Iterator[Head]:
    """A head that is up, and nothing of it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="kh-", dir="/tmp"))
    head = Head(folder, project)
    try:
        head.start()
        yield head
    finally:
        head.kill()
        for _ in range(20):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)
