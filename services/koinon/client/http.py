"""HTTP to the hub: bearer token, problem documents as errors, calls that are safe to repeat, event streams."""

import json
import random
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from koinon.artifacts import keyfiles
from koinon.domain import errors
from koinon.domain.loopback import is_loopback

ATTEMPTS = 4
READ_SECONDS = 60.0


def check_url(url: str) -> str:
    """`url` without a trailing slash. Raises Invalid unless it is https, or http to this machine."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.Invalid(f'"{url}" is not the address of a hub.', todo="It looks like https://hub.example.org")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise errors.Invalid(
            "Plain http would show your token to the network.", where=url, todo="Use the hub's https:// address."
        )
    return url.rstrip("/")


def problem(response: httpx.Response) -> errors.KoinonError:
    """The error that a problem document (RFC 9457) describes, or one made of the status alone."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    slug = str(body.get("code") or str(body.get("type", "")).rpartition("/")[2])
    kind = errors.by_slug(slug)
    if kind is errors.KoinonError and response.status_code in (502, 504):
        kind = errors.Unavailable  # a proxy's word: it did not reach the hub
    elif kind is errors.KoinonError:
        kind = next(
            (c for c in errors.KoinonError.__subclasses__() if c.status == response.status_code), errors.KoinonError
        )
    what = body.get("detail") or body.get("title") or f"The hub answered {response.status_code}."
    where = body.get("where") or f"{response.request.method} {response.request.url.path}"
    return kind(str(what), where=str(where), todo=str(body.get("todo") or ""))


class Connection:
    """One hub, one identity. Every call is idempotent at the hub, so that each is repeated when the hub was away.

    Raises the classes of koinon.domain.errors: those that the hub names, and Unavailable when it cannot be reached.
    """

    def __init__(self, url: str, token: str | None = None, *, ca: Path | None = None) -> None:
        """`ca`: the only authority (PEM) trusted for the hub. Raises Invalid, NotFound for its file."""
        self.url = check_url(url)
        headers = {"User-Agent": "koinon", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # A proxy of the environment must not see what stays on this machine.
        trust = not is_loopback(urlsplit(self.url).hostname or "")
        self._client = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(READ_SECONDS, connect=10.0),
            trust_env=trust,
            verify=True if ca is None else keyfiles.trusting(ca),
        )

    def __repr__(self) -> str:
        return f"Connection({self.url})"

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", path, params={k: v for k, v in query.items() if v is not None}).json()

    def post(self, path: str, body: Any, *, key: str | None = None) -> httpx.Response:
        """POST of JSON; `key` is the Idempotency-Key. The response, since its status may say created or found."""
        return self._call("POST", path, json=body, headers={"Idempotency-Key": key} if key else {})

    def put(self, path: str, content: bytes) -> None:
        self._call("PUT", path, content=content, headers={"Content-Type": "application/octet-stream"})

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def exists(self, path: str) -> bool:
        """Whether there is something to get, without getting it."""
        try:
            self._call("HEAD", path)
        except errors.NotFound:
            return False
        return True

    def stream(self, path: str) -> Iterator[bytes]:
        """The bytes of `path` as they come, never held at once."""
        try:
            with self._client.stream("GET", path, headers={"Accept": "application/octet-stream"}) as response:
                if response.is_error:
                    response.read()
                    raise problem(response)
                yield from response.iter_bytes(2**20)
        except httpx.TransportError as error:
            raise self._away(error) from None

    def events(self, path: str, after: int, *, silence: float = READ_SECONDS) -> Iterator[dict[str, Any]]:
        """Server-sent events after number `after`; an empty one for each sign of life between them.

        Ends when the hub closes the stream or says nothing for `silence` seconds. Raises Unavailable if it breaks.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        query = {"after": after}
        patience = httpx.Timeout(silence, connect=10.0)
        try:
            with self._client.stream("GET", path, headers=headers, params=query, timeout=patience) as response:
                if response.is_error:
                    response.read()
                    raise problem(response)
                yield from parse_events(response.iter_lines())
        except httpx.ReadTimeout:
            return
        except httpx.TransportError as error:
            raise self._away(error) from None

    def _call(self, method: str, path: str, headers: Mapping[str, str] | None = None, **content: Any) -> httpx.Response:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                response = self._client.request(method, path, headers=headers, **content)
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise self._away(error) from None
            else:
                if response.is_success:
                    return response
                if response.status_code not in (502, 503) or attempt == ATTEMPTS:
                    raise problem(response)
            time.sleep(pause(attempt))
        raise AssertionError("unreachable")

    def _away(self, error: httpx.TransportError) -> errors.Unavailable:
        late = isinstance(error, httpx.TimeoutException)
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            return errors.Unavailable(
                f"The hub's certificate is not trusted: {cause.verify_message}.",
                where=self.url,
                todo="If it is by an authority of your own: koinon login ADDRESS --ca FILE, or KOINON_CA",
            )
        return errors.Unavailable(
            "The hub did not answer in time." if late else "The hub cannot be reached.",
            where=self.url,
            todo="Is it running, and is the address right? koinon login ADDRESS",
        )


def pause(attempt: int) -> float:
    """Seconds before attempt + 1: 0.2, 0.4, 0.8, … up to 5, with jitter so that clients do not march in step."""
    return min(5.0, 0.1 * 2.0**attempt) * random.uniform(0.75, 1.25)


def parse_events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON of each event's data lines (WHATWG HTML, 9.2.6); an empty object for a comment, a sign of life."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith(":"):
            yield {}
        elif not line and data:
            value = json.loads("\n".join(data))
            data = []
            if isinstance(value, dict):
                yield value
