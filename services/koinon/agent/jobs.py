"""What is needed of Ray's Jobs API, by HTTP alone. Whoever answers there may be hostile: time and bytes are bounded.

Ray answers 500 to a submission id that it knows, and to much else; so what a request has done is asked for by itself.
"""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from koinon.agent.place import within
from koinon.domain.errors import Unavailable

MAX_ANSWER = 8 * 2**20
_SECONDS = 15.0  # submitting waits for an agent process of the head
_LIVE = ("PENDING", "RUNNING")


class Away(Exception):
    """The cluster does not answer, or not as one that works."""


@dataclass(frozen=True)
class Job:
    id: str
    status: str
    entrypoint: str
    message: str  # of one that failed: the last lines of its log, at most 20 000 characters

    @property
    def live(self) -> bool:
        return self.status in _LIVE


class Jobs:
    """The jobs of one cluster. Every call raises Away, or Unavailable if the cluster does not take the token."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_keepalive_connections=0),
            timeout=httpx.Timeout(_SECONDS, connect=5.0),
            trust_env=False,
        )

    def close(self) -> None:
        self._client.close()

    def all(self, prefix: str) -> list[Job]:
        """Those whose id begins with `prefix`."""
        found = _loads(self._call("GET", "/api/jobs/"))
        jobs = [_job(entry) for entry in found] if isinstance(found, list) else []
        return [job for job in jobs if job is not None and job.id.startswith(prefix)]

    def get(self, job: str) -> Job | None:
        body = self._call("GET", f"/api/jobs/{quote(job)}", absent=404)
        return None if body is None else _job(_loads(body))

    def submit(self, job: str, entrypoint: str) -> None:
        """May be repeated."""
        try:
            self._call("POST", "/api/jobs/", {"submission_id": job, "entrypoint": entrypoint})
        except Away:
            if self.get(job) is None:
                raise

    def stop(self, job: str) -> None:
        """Asks it to end, and three seconds later kills it; it may take longer until `get` says so."""
        self._call("POST", f"/api/jobs/{quote(job)}/stop", {}, absent=404)

    def delete(self, job: str) -> None:
        """Forgets one that is over."""
        self._call("DELETE", f"/api/jobs/{quote(job)}", absent=404)

    def _call(self, method: str, path: str, body: Any = None, *, absent: int = 0) -> bytes | None:
        """The answer's body, None for the status `absent`."""
        try:
            with (
                within(_SECONDS) as limit,
                self._client.stream(method, path, json=body, extensions=limit.extensions) as said,
            ):
                if said.status_code == absent:
                    return None
                if said.status_code in (401, 403):
                    raise Unavailable(
                        "The Ray cluster refuses this site's token.",
                        where=str(self._client.base_url),
                        todo="Both must be made from the same secret: kubectl koinon doctor",
                    )
                if not said.is_success:
                    raise Away(f"status {said.status_code}")
                return _bounded(said)
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise Away(type(error).__name__) from None


def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise Away(f"more than {MAX_ANSWER} bytes")
    return bytes(body)


def _loads(body: bytes | None) -> Any:
    try:
        return json.loads(body or b"null")
    except (ValueError, RecursionError):
        raise Away("no JSON") from None


def _job(entry: Any) -> Job | None:
    fields = entry if isinstance(entry, dict) else {}
    texts = [fields.get(name) or "" for name in ("submission_id", "status", "entrypoint", "message")]
    if not texts[0] or not all(isinstance(text, str) for text in texts):
        return None
    return Job(*texts)
