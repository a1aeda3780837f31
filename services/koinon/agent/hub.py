"""The site's side of the HTTP API: signed requests that outlive lost connections, uploads and downloads that resume.

Every request may be repeated, so whatever failed on the way is simply sent again until `until`, with a pause that
grows. What the hub answers is data: bounded, and checked before it is used.
"""

import email.utils
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

import httpx

from koinon.agent import link
from koinon.domain import canonical, httpsig, wire
from koinon.domain.errors import KoinonError, TooLarge, Unavailable, Untrusted
from koinon.domain.keys import SigningKey

POLL_SECONDS = 25.0
_CHUNK = 2**20
_DATE_SECONDS = 2.0  # a server may renew its header once a second
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Polled:
    """What the long-poll answered. `runs`: those that go on, with their newest round and attempt."""

    cursor: int
    tasks: tuple[wire.Task, ...]
    projects: tuple[str, ...]
    runs: dict[str, tuple[int, int]] | None


class Hub:
    """The hub as one site sees it. Thread-safe; `stop` ends all waits."""

    def __init__(self, url: str, site: str, signer: SigningKey, *, stop: Event, clock: Callable[[], float] = time.time,
                 authority: Path | None = None, proxy: str | None = None) -> None:  # fmt: skip
        self._client = link.connection(url, authority=authority, proxy=proxy, timeout=60.0)
        self._site = site
        self._signer = signer
        self._stop = stop
        self._clock = clock
        self._lock = Lock()
        self.offset = 0.0  # this clock minus the hub's, seconds
        self.heard: float | None = None  # when the hub last answered a signed request as one that knows this site
        self.sent = self.received = 0  # bytes of bodies

    def close(self) -> None:
        self._client.close()

    # one request

    def _build(self, method: str, path: str, *, params: dict[str, Any] | None = None, body: bytes = b"",
               headers: dict[str, str] | None = None, timeout: float | None = None) -> httpx.Request:  # fmt: skip
        extra: dict[str, Any] = {} if timeout is None else {"timeout": httpx.Timeout(timeout, connect=5.0)}
        kind = {"Content-Type": "application/json"} if body[:1] == b"{" else {}
        request = self._client.build_request(
            method, path, params=params, content=body, headers={**kind, **(headers or {})}, **extra
        )
        request.headers.update(
            httpsig.sign(method, str(request.url), self._site, self._signer, created=self._clock(), body=body)
        )
        return request

    def _note_clock(self, response: httpx.Response, asked: float) -> None:
        """The smallest offset with which the hub wrote `Date`, in whole seconds, between `asked` and now.

        A server may write it when a long poll begins or when it ends.
        """
        if date := response.headers.get("Date"):
            parsed = email.utils.parsedate_to_datetime(date).timestamp()
            least, most = asked - parsed - _DATE_SECONDS, self._clock() - parsed
            self.offset = least if least > 0 else min(most, 0.0)

    def request(self, method: str, path: str, *, until: float, params: dict[str, Any] | None = None, body: bytes = b"",
                timeout: float | None = None) -> bytes:  # fmt: skip
        """The answer's body. Repeats the request until the time `until` while the hub is away, busy or restarting.

        Raises Unavailable if it stays so, and the error of the hub's problem document otherwise.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                request, asked = self._build(method, path, params=params, body=body, timeout=timeout), self._clock()
                response = self._client.send(request, stream=True)
                try:
                    self._note_clock(response, asked)
                    content = link.bounded(response)
                finally:
                    response.close()
                if response.status_code < 400:
                    self._count(len(body), len(content))
                    return content
                if response.status_code not in _AGAIN:
                    raise link.problem(content, response.status_code)
                error: KoinonError = link.problem(content, response.status_code)
            except httpx.TransportError as lost:
                error = Unavailable(f"The hub does not answer ({link.reason(lost)}).", where=str(self._client.base_url))
            self._pause(pause, until, error)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _count(self, sent: int, received: int) -> None:
        self.heard = self._clock()
        with self._lock:
            self.sent, self.received = self.sent + sent, self.received + received

    def _pause(self, seconds: float, until: float, error: KoinonError) -> None:
        """Waits a little; raises `error` if the time is up or the agent ends."""
        wait = seconds * random.uniform(0.5, 1.0)  # so that sites do not come back all at once
        if self._clock() + wait >= until or self._stop.wait(wait):
            raise Unavailable(error.what, where=error.where, todo=error.todo) from None

    # the routes

    def poll(self, after: int, status: wire.SiteStatus, *, wait: float = POLL_SECONDS) -> Polled:
        """Waits up to `wait` seconds for something new. Raises Unavailable at once if the hub is away."""
        body = self.request(
            "POST",
            "/v1/sites/me/tasks",
            params={"after": after, "wait": wait},
            body=status.model_dump_json().encode(),
            until=0.0,
            timeout=wait + 15.0,
        )
        value = _object(body)
        runs = value.get("runs")
        return Polled(
            cursor=_integer(value.get("cursor")),
            tasks=tuple(wire.Task.of(task, where="tasks") for task in _list(value.get("tasks"))),
            projects=tuple(str(name) for name in _list(value.get("projects"))),
            runs=None if runs is None else {str(run): _standing(entry) for run, entry in runs.items()},
        )

    def send(self, phase: str, opening: wire.Opening, body: bytes, *, until: float, seconds: str = "") -> str:
        """Hands in this site's bundle of a phase. `accepted`, `repeated` or `late`."""
        params = {"run": opening.run, "round": opening.round, "attempt": opening.attempt}
        if seconds:
            params["seconds"] = seconds
        answer = self.request("POST", f"/v1/sites/me/bundles/{phase}", params=params, body=body, until=until)
        return str(_object(answer).get("result", ""))

    def report(self, opening: wire.Opening, report: wire.SiteReport, *, until: float) -> None:
        params = {"run": opening.run, "round": opening.round, "attempt": opening.attempt}
        self.request("POST", "/v1/sites/me/trouble", params=params, body=report.encode(), until=until)

    def put(self, what: str, body: bytes, *, until: float) -> None:
        """Hands in a grant (`grants`), a revocation (`revocations`) or a certificate (`certificate`)."""
        self.request("PUT", f"/v1/sites/me/{what}", body=body, until=until)

    def manifest(self, name: str, *, until: float) -> bytes:
        """The canonical JSON of the manifest `name` as the hub shows it; the caller checks that it has that hash."""
        project = _object(self.request("GET", f"/v1/projects/{name}", until=until))
        return canonical.encode(project.get("manifest"))

    # bytes of any size

    def upload(self, opening: wire.Opening, path: Path, *, until: float, fresh: bool = False) -> None:
        """Sends the file in parts of at most 64 MiB; those that the hub has are not sent again.

        `fresh`: nothing of it was sent before, so the hub is not asked what it has.
        """
        base = f"/v1/sites/me/uploads/{opening.run}/{opening.round}/{opening.attempt}"
        size = path.stat().st_size
        have: set[int] = set()
        if not fresh:
            answer = _object(self.request("GET", base, until=until))
            have = {_integer(part) for part in _list(answer.get("parts"))}
        with path.open("rb") as file:
            for index in range(max(1, -(-size // wire.PART_BYTES))):
                if index in have:
                    continue
                file.seek(index * wire.PART_BYTES)
                self.request("PUT", f"{base}/{index}", body=file.read(wire.PART_BYTES), until=until, timeout=600.0)

    def download(self, path: str, target: Path, sha256: str, *, limit: int, until: float) -> None:
        """Fetches what hashes to `sha256` into `target`, going on where a lost connection ended.

        At most `limit` bytes. Raises Untrusted for other bytes, TooLarge for more; no file is left then.
        """
        draft = target.with_name(f".{target.name}.part")
        pause = _FIRST_PAUSE
        while not target.exists():
            try:
                before = draft.stat().st_size if draft.exists() else 0
                if self._fetch(path, draft, before, limit):
                    _take(draft, target, sha256)
                    return
                error: KoinonError = Unavailable("The hub ended a download early.", where=path)
            except httpx.TransportError as lost:
                error = Unavailable(f"The hub does not answer ({link.reason(lost)}).", where=path)
            except Unavailable as busy:
                error = busy
            except (TooLarge, Untrusted):
                draft.unlink(missing_ok=True)
                raise
            pause = _FIRST_PAUSE if draft.exists() and draft.stat().st_size > before else min(2 * pause, _LONGEST_PAUSE)
            self._pause(pause, until, error)

    def _fetch(self, path: str, draft: Path, before: int, limit: int) -> bool:
        """Appends to `draft` what comes. True if that was all of it."""
        request = self._build("GET", path, headers={"Range": f"bytes={before}-"} if before else None)
        response = self._client.send(request, stream=True)
        try:
            if response.status_code == 416 and before:  # everything is here already
                return True
            if response.status_code >= 400:
                error = link.problem(link.bounded(response), response.status_code)
                raise Unavailable(error.what) if response.status_code in _AGAIN else error
            mode = "ab" if response.status_code == 206 else "wb"
            size = before if mode == "ab" else 0
            with draft.open(mode) as file:
                for chunk in response.iter_raw():  # NB: as it comes; whole chunks would be lost with the connection
                    size += len(chunk)
                    if size > limit:
                        raise TooLarge(f"The hub sends more than the {limit} bytes that were announced.", where=path)
                    file.write(chunk)
            self._count(0, size - (before if mode == "ab" else 0))
            expected = response.headers.get("Content-Length")
            return expected is None or size == (before if mode == "ab" else 0) + int(expected)
        finally:
            response.close()


def _take(draft: Path, target: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with draft.open("rb") as file:
        for chunk in _chunks(file.read):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        draft.unlink()
        raise Untrusted("What the hub sent does not have the hash that was asked for.", where=f"sha256 {sha256[:12]}")
    os.replace(draft, target)


def _chunks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(_CHUNK):
        yield chunk


def _object(body: bytes) -> dict[str, Any]:
    value = canonical.decode(body)
    if not isinstance(value, dict):
        raise Untrusted("The hub's answer is not an object.")
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise Untrusted("The hub's answer has no number where one belongs.")
    return value


def _standing(entry: Any) -> tuple[int, int]:
    fields = entry if isinstance(entry, dict) else {}
    return int(fields.get("round", 0)), int(fields.get("attempt", 0))
