"""Who is asking: researchers by bearer token, sites by signed requests (RFC 9421)."""

import hashlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

import anyio.to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect

from koinon.domain import httpsig
from koinon.domain.errors import Invalid, NotFound, TooLarge, Unauthenticated, Unsupported, Untrusted
from koinon.domain.httpsig import Verified
from koinon.domain.keys import Certificate
from koinon.domain.wire import PROTOCOL
from koinon.gateway.hub import Hub
from koinon.store import accounts
from koinon.store.records import SiteRow, User
from koinon.store.store import Store

MAX_BODY = 16 * 2**20
_BLOCK = 2**20
PROTOCOL_HEADER = "Koinon-Protocol"
_bearer = HTTPBearer(auto_error=False, description="A token that `koinon user add` printed once.")


class Directory:
    """The enrolled sites, in memory: every request of a site needs its certificate. One hub writes them, this one."""

    def __init__(self, store: Store) -> None:
        self._lock = threading.Lock()
        self._rows = {row.name: row for row in store.sites()}

    def put(self, row: SiteRow) -> None:
        with self._lock:
            self._rows[row.name] = row

    def get(self, name: str) -> SiteRow | None:
        return self._rows.get(name)

    def names(self) -> list[str]:
        return sorted(self._rows)

    def certificate(self, name: str) -> Certificate:
        """Raises NotFound."""
        row = self._rows.get(name)
        if row is None:
            raise NotFound(f'No site "{name}" is enrolled here.')
        return row.certificate

    def signing_key(self, name: str, now: float) -> str:
        """Raises Unauthenticated for an unknown site or a certificate that is not valid now."""
        row = self._rows.get(name)
        if row is None:
            raise Unauthenticated(f'No site "{name}" is enrolled here.', todo="Enrol it: koinon site init")
        certificate = row.certificate
        if not certificate.not_before <= now <= certificate.not_after:
            raise Unauthenticated(
                f"The certificate of {name} is not valid now.",
                where="certificate",
                todo="Check the site's clock, or renew it: koinon site init --renew",
            )
        return certificate.signing


@dataclass(frozen=True)
class Caller:
    """A site whose request's head is verified; its body is checked when it has been read."""

    row: SiteRow
    verified: Verified
    offset: float  # the site's clock less the hub's, in seconds

    @property
    def name(self) -> str:
        return self.row.name


def hub_of(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


async def researcher(request: Request, _: Annotated[object, Depends(_bearer)] = None) -> User:
    """The user whose bearer token it is. Raises Unauthenticated."""
    scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
    user = None
    if scheme.lower() == "bearer" and token:
        hashed = accounts.hash_token(token.strip())
        user = await anyio.to_thread.run_sync(hub_of(request).store.user_by_token, hashed)
    if user is None:
        raise Unauthenticated(
            "This needs the token of a user of this hub.",
            where="Authorization",
            todo="koinon login keeps a token; the hub's operator makes one: koinon user add NAME",
        )
    return user


async def site(request: Request) -> Caller:
    """The site that signed the request's head. Raises Unsupported, Unauthenticated."""
    spoken = request.headers.get(PROTOCOL_HEADER, "")
    if spoken != str(PROTOCOL):
        raise Unsupported(
            f"This hub serves protocol {PROTOCOL}, not {spoken or 'an unnamed one'}.",
            where=PROTOCOL_HEADER,
            todo="Install the koinon version that the hub's operator names.",
        )
    hub = hub_of(request)
    now = hub.clock()
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    query = request.scope["query_string"]
    url = f"http://hub{hub.below}{raw.decode('ascii')}" + (f"?{query.decode('ascii')}" if query else "")
    verified = httpsig.verify(
        request.method, url, request.headers, lambda name: hub.directory.signing_key(name, now), now=now
    )
    row = hub.directory.get(verified.site)
    assert row is not None
    return Caller(row, verified, verified.created - now)


async def either(request: Request) -> User | Caller:
    """A researcher, or a site that signed."""
    return await site(request) if "Signature-Input" in request.headers else await researcher(request)


async def body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The request's body. Raises TooLarge beyond `limit` bytes before more is read."""
    received = bytearray()
    async for chunk in bounded(request, limit):
        received += chunk
    return bytes(received)


async def bounded(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The chunks of the body as they come. Raises TooLarge at the first byte beyond `limit`."""
    declared = request.headers.get("Content-Length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(f"The body of {declared} bytes is above {limit}.", where="Content-Length")
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise TooLarge(f"The body is above {limit} bytes.", where="body")
        yield chunk
    if declared.isdigit() and total != int(declared):
        raise Invalid(f"The body ends after {total} of {declared} bytes.", where="body", todo="Send it again.")


def blocks(request: Request, limit: int) -> Callable[[], Coroutine[Any, Any, bytes]]:
    """The body in blocks of about a MiB, one a call; b"" at its end. For `anyio.from_thread.run` of a writing thread.

    Raises TooLarge beyond `limit`, Invalid if the body ends early.
    """
    chunks = bounded(request, limit)

    async def block() -> bytes:
        held = bytearray()
        try:
            while len(held) < _BLOCK:
                held += await anext(chunks)
        except StopAsyncIteration:
            pass
        except ClientDisconnect:
            raise Invalid("The connection ended within the body.", where="body", todo="Send it again.") from None
        return bytes(held)

    return block


async def signed_body(request: Request, caller: Caller, limit: int = MAX_BODY) -> bytes:
    """The body that the site signed. Raises Untrusted if it is another, TooLarge."""
    content = await body(request, limit)
    check_digest(caller, hashlib.sha256(content).digest())
    return content


def check_digest(caller: Caller, sha256: bytes) -> None:
    if not secrets.compare_digest(httpsig.content_digest(sha256), caller.verified.digest):
        raise Untrusted(
            "The body is not the one that was signed.",
            where="Content-Digest",
            todo="Send sha-256 of the body as sent (RFC 9530), and send it again.",
        )


Researcher = Annotated[User, Depends(researcher)]
Site = Annotated[Caller, Depends(site)]
Either = Annotated[User | Caller, Depends(either)]
