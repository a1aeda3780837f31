"""A trainer as a long-lived job of its project's Ray cluster, whose pods and walls are the operator's.

The job outlives the agent and its connections: an agent that comes back finds it and asks again. Each start of it is a
generation of its own, `koinon-<hash[:12]>-<generation>`. A cluster that is away (a head that is started again has
forgotten its jobs) is waited for. Limits of memory and disk are the pods'.
"""

import hashlib
import hmac
import socket
import time
from pathlib import Path
from threading import Event, RLock

import httpx

from koinon.agent.config import Kubernetes
from koinon.agent.jobs import Away, Jobs
from koinon.agent.logs import Log
from koinon.agent.place import Work, within
from koinon.domain.errors import Unavailable

WAIT_SECONDS = 180.0  # for a cluster that is away, before the task is put off
STOP_SECONDS = 10.0  # Ray kills after 3
_AGAIN = 1.0
_MAX_TOLD = 64 * 2**10
# A peer that vanished with its machine is noticed after 25 s, however long the answer may take.
_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


def token(secret: Path, project: str) -> str:
    """The token of a project's cluster, which the operator makes from the same secret. Raises Unavailable."""
    try:
        return hmac.new(secret.read_bytes(), project.encode(), hashlib.sha256).hexdigest()
    except OSError as error:
        raise Unavailable(
            f"The secret of the Ray clusters cannot be read ({type(error).__name__}).",
            where=str(secret),
            todo="The operator makes it: kubectl get secret koinon-ray",
        ) from None


class Cluster:
    """A place (see `place.Place`)."""

    def __init__(self, work: Work, given: Kubernetes, log: Log) -> None:
        self._work = work
        self._given = given
        self._log = log
        self._host = given.host(work.project)
        self._prefix = f"koinon-{work.project[:12]}-"
        seconds = work.resources.fit_seconds
        self._entrypoint = f"exec python -m koinon.trainer --listen 0.0.0.0:{given.trainer_port} --seconds {seconds}"
        self._lock = RLock()
        self._jobs: Jobs | None = None
        self._job: str | None = None
        self._least = 1  # generations before it are not to be used again
        self._token = ""

    @property
    def walls(self) -> dict[str, bool | str]:
        return {}  # they are the operator's, and its init containers try them

    def exceeded(self) -> str | None:
        return None

    # life

    def open(self, stopped: Event) -> httpx.Client:
        until, said = time.monotonic() + WAIT_SECONDS, ""
        while True:
            try:
                with self._lock:
                    if not stopped.is_set():
                        self._job = self._find_or_submit()
                        return self._client()
            except Away as away:
                if not said:
                    self._log.event("cluster-away", project=self._work.project, host=self._host, error=str(away))
                said = str(away)
            if stopped.wait(_AGAIN) or time.monotonic() > until:
                raise Unavailable(
                    f"The Ray cluster of project {self._work.project[:12]} does not answer ({said or 'stopped'}).",
                    where=self._host,
                    todo="kubectl get grants says what holds it up.",
                )

    def _client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(socket_options=_OPTIONS, limits=httpx.Limits(max_keepalive_connections=0))
        return httpx.Client(
            transport=transport,
            base_url=f"http://{self._host}:{self._given.trainer_port}",
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=httpx.Timeout(None, connect=5.0),  # each question has its own limit
            trust_env=False,
        )

    def _connected(self) -> Jobs:
        """The cluster's jobs; asked with the token of today."""
        fresh = token(Path(self._given.ray_secret), self._work.project)
        if self._jobs is None or fresh != self._token:
            if self._jobs is not None:
                self._jobs.close()
            self._token = fresh
            self._jobs = Jobs(f"http://{self._host}:{self._given.jobs_port}", fresh)
        return self._jobs

    def _find_or_submit(self) -> str:
        """The job's id. What is left of others is ended and forgotten."""
        jobs = self._connected()
        known = {self._generation(job.id): job for job in jobs.all(self._prefix)}
        wanted = {n for n, job in known.items() if job.live and n >= self._least and job.entrypoint == self._entrypoint}
        keep = max(wanted, default=0)
        for number, job in known.items():
            if keep and number == keep:
                continue
            if job.live:
                self._stop(jobs, job.id)  # NB: forgotten the next time; Ray's monitor would put it back now
            else:
                self._log.event("trainer", project=self._work.project, job=job.id, status=job.status, text=job.message)
                jobs.delete(job.id)
        if keep:
            return known[keep].id
        self._least = max([*known, self._least - 1]) + 1
        name = f"{self._prefix}{self._least}"
        jobs.submit(name, self._entrypoint)
        return name

    def _generation(self, name: str) -> int:
        """0 for a name that is not of ours, which research code may have given."""
        text = name.removeprefix(self._prefix)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0

    def alive(self) -> bool:
        with self._lock:
            if self._job is None or self._jobs is None:
                return False
            try:
                job = self._jobs.get(self._job)
            except Away:
                return True  # the trainer itself may still answer; if not, the cluster is waited for
            return job is not None and job.live

    def lost(self) -> None:
        """The job may go on without us: the next `open` finds it, or a cluster that has forgotten it."""

    def leave(self) -> None:
        with self._lock:
            self._job = None
            if self._jobs is not None:
                self._jobs.close()
                self._jobs = None

    def end(self) -> None:
        with self._lock:
            job, self._job = self._job, None
            if job is None:
                return
            self._least = max(self._least, self._generation(job) + 1)
            try:
                self._connected().stop(job)  # the next `open` waits for its end
            except (Away, Unavailable) as error:  # the next `open` stops it, if its cluster is there then
                self._log.event("not-stopped", project=self._work.project, job=job, error=str(error))

    def _stop(self, jobs: Jobs, name: str) -> None:
        """Stops it and waits until it is over. Raises Away."""
        jobs.stop(name)
        until = time.monotonic() + STOP_SECONDS
        while (job := jobs.get(name)) is not None and job.live:
            if time.monotonic() > until:
                raise Away(f"{name} does not stop")
            time.sleep(0.1)

    def told(self, incident: str | None) -> str:
        if incident is None or not self._token:
            return ""
        body = bytearray()
        try:
            with (
                self._client() as client,
                within(5.0) as limit,
                client.stream("GET", f"/v1/incidents/{incident}", extensions=limit.extensions) as said,
            ):
                for chunk in said.iter_raw():
                    body += chunk
                    if len(body) >= _MAX_TOLD:
                        break
        except httpx.TransportError:
            return ""
        return bytes(body[:_MAX_TOLD]).decode("utf-8", "replace")
