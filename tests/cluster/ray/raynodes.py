"""A Ray cluster of several nodes on this machine, and a trainer in it, as in the pods of one project."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.services import ports
from tests.services.trainers import Server, descendants, wait_until

_QUIET = ("--block", "--num-cpus", "1", "--num-gpus", "0", "--object-store-memory", "100000000",
          "--disable-usage-stats", "--include-log-monitor=false", "--dashboard-agent-listen-port", "0")  # fmt: skip


class Node:
    """What a pod would hold: `ray start` and all that it starts."""

    def __init__(self, cluster: "Cluster", *arguments: str) -> None:
        self.log = cluster.folder / f"node-{secrets.token_hex(4)}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [f"{Path(sys.executable).parent}/ray", "start", *arguments, *_QUIET],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=cluster.environment,
            )

    def started(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "Ray runtime started" in self.log.read_text()

    def everything(self) -> dict[int, str]:
        return {self.process.pid: "ray start", **descendants(self.process.pid)}

    def signal(self, number: int) -> None:
        for pid in self.everything():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """As a machine goes that loses its power, but for the connections, which the kernel closes."""
        before = self.everything()
        self.signal(signal.SIGSTOP)  # so that none sees another die and starts a third
        self.signal(signal.SIGKILL)
        self.process.wait()
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before)), before


class Cluster(Server):
    """A head that has the trainer, and workers that come and go. The client has the cluster's token."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        token, port = secrets.token_hex(32), ports.free()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RAY_ADDRESS": f"127.0.0.1:{port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_worker_register_timeout_seconds": "180",
            "DASHBOARD_METRIC_PORT": str(ports.free()),
            "AUTOSCALER_METRIC_PORT": str(ports.free()),
        }
        self.nodes = [Node(self, "--head", "--port", str(port), "--temp-dir", str(folder / "r"),
                           "--include-dashboard=false")]  # fmt: skip
        listen = f"127.0.0.1:{ports.free()}"
        command = [sys.executable, "-m", "koinon.trainer", "--listen", listen, "--temp", str(folder / "t")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--guard", "--seconds", "150"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment,
            )
        headers = {"Authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=f"http://{listen}", headers=headers, timeout=180, trust_env=False)

    def serve(self) -> None:
        """Waits until the trainer does."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text() + self.nodes[0].log.read_text()
        assert json.loads(line)["ready"]

    def add(self) -> Node:
        node = Node(self, "--address", self.environment["RAY_ADDRESS"])
        self.nodes.append(node)
        assert wait_until(node.started, 60), node.log.read_text()
        return node

    def trained_on(self) -> list[Node]:
        """The nodes that have an actor."""
        return [node for node in self.nodes if any("ray::Actor" in command for command in node.everything().values())]


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster with its trainer, and after it the proof that it left no process behind."""
    folder = Path(tempfile.mkdtemp(prefix="kr-", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        cluster.serve()
        yield cluster
    finally:
        try:
            cluster.close()
        finally:
            for node in reversed(cluster.nodes):
                node.kill()
    shutil.rmtree(folder)
