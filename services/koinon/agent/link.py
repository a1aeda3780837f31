"""How this site reaches its hub: whom it trusts, through which proxy, and what an answer says that is none."""

import json
import socket
import ssl
from pathlib import Path

import httpx

from koinon.artifacts import keyfiles
from koinon.domain import errors, wire
from koinon.domain.errors import KoinonError, TooLarge, Unauthenticated

MAX_ANSWER = 64 * 2**20  # a roster of 300 sites has about 1 MiB


def connection(url: str, *, authority: Path | None, proxy: str | None, timeout: float) -> httpx.Client:
    """A client of the hub: `authority` (PEM) is then the only one trusted. Raises NotFound, Invalid for its file."""
    # NB: a proxy from the environment must not come between a site and a hub on the same machine.
    return httpx.Client(
        base_url=url.rstrip("/"),
        timeout=httpx.Timeout(timeout, connect=5.0),
        limits=httpx.Limits(max_keepalive_connections=8, keepalive_expiry=60.0),
        verify=True if authority is None else keyfiles.trusting(authority),
        proxy=proxy,
        trust_env=False,
        headers={"Koinon-Protocol": str(wire.PROTOCOL), "User-Agent": "koinon-agent"},
    )


def reason(lost: httpx.TransportError) -> str:
    """Why there is no answer, as far as this machine can tell."""
    cause: BaseException | None = lost
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name does not resolve"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return type(lost).__name__


def bounded(response: httpx.Response) -> bytes:
    pieces, size = [], 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > MAX_ANSWER:
            raise TooLarge("The hub's answer is too long.")
        pieces.append(chunk)
    return b"".join(pieces)


def problem(body: bytes, status: int) -> KoinonError:
    """The error that a problem document (RFC 9457) describes."""
    try:
        value = json.loads(body)
        fields = value if isinstance(value, dict) else {}
    except ValueError:
        fields = {}
    kind = errors.by_slug(str(fields.get("code", "")))
    if kind is KoinonError and status == 401:
        kind = Unauthenticated
    what = str(fields.get("detail") or fields.get("title") or f"The hub answered {status}.")
    return kind(what, where=str(fields.get("where", "")), todo=str(fields.get("todo", "")))
