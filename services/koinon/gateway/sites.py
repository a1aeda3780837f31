"""What sites say to the hub: enrolment, one long-poll, one bundle per phase, certificates, grants.

Every request but the enrolment is signed (`koinon.domain.httpsig`) and may be repeated: the answer is the same.
A task stands in the long-poll's answer until the site has answered it; a site does whatever it finds there.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from koinon.domain import keys, wire
from koinon.domain.errors import (
    Conflict,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
    Untrusted,
)
from koinon.domain.grant import Grant, Revocation
from koinon.domain.keys import Certificate
from koinon.domain.run import Phase
from koinon.domain.wire import SiteReport, SiteStatus
from koinon.gateway import auth, connections, documents, examples
from koinon.gateway.auth import Caller, Researcher, Site
from koinon.gateway.examples import Enrolment
from koinon.gateway.hub import Hub
from koinon.gateway.problems import described
from koinon.store import accounts
from koinon.store.records import SiteRow

router = APIRouter(tags=["sites"])
POLL_SECONDS = 25.0
_Consent = TypeVar("_Consent", Grant, Revocation)
_SIGNED = described(Unauthenticated, Unsupported, Unavailable)


class SiteShown(BaseModel):
    name: str
    root: str = Field(description="Root public key (Ed25519, hex).")
    fingerprint: str = Field(description="Of the root key, to compare on the telephone.")
    certificate: dict[str, Any]
    enrolled: float
    connected: bool = Field(description="Is it polling?")
    last_seen: float | None
    clock_offset: float | None = Field(description="The site's clock less the hub's, in seconds.")
    status: dict[str, Any] | None = Field(description="Version, what it does now, free disk in bytes.")


class SiteList(BaseModel):
    sites: list[SiteShown]


class Polled(BaseModel):
    """Answer of the long-poll."""

    cursor: int = Field(description="Give it as `after` in the next poll.")
    tasks: list[wire.Task] = Field(description="All that this site is asked to do now.")
    projects: list[str] = Field(description="Hashes of the manifests that name this site.")
    runs: dict[str, dict[str, int]] = Field(
        description="Runs of those projects that are not over, with the number of their newest round and attempt. "
        "What a site keeps of any other run, round or attempt can be erased."
    )


class Received(BaseModel):
    result: str = Field(description="accepted, repeated (the same was here before), or late (the phase is over).")


def site_shown(hub: Hub, row: SiteRow) -> dict[str, Any]:
    """A site as JSON."""
    seen = hub.scheduler.last_seen(row.name) or row.last_seen
    return {
        "name": row.name,
        "root": row.root,
        "fingerprint": keys.fingerprint(row.root),
        "certificate": row.certificate.model_dump(mode="json"),
        "enrolled": row.enrolled,
        "connected": hub.scheduler.is_live(row.name),
        "last_seen": seen,
        "clock_offset": row.clock_offset,
        "status": row.status.model_dump(mode="json") if row.status else None,
    }


@router.get("/v1/sites", response_model=SiteList, summary="List enrolled sites", responses=described(Unauthenticated))
def list_sites(request: Request, user: Researcher) -> Any:
    hub = auth.hub_of(request)
    return {"sites": [site_shown(hub, row) for row in hub.store.sites()]}


@router.get(
    "/v1/sites/{name}",
    response_model=SiteShown,
    summary="Show a site: last contact, clock, disk, what it does now",
    responses=described(NotFound, Unauthenticated),
)
def get_site(name: str, request: Request, user: Researcher) -> Any:
    hub = auth.hub_of(request)
    return site_shown(hub, hub.store.site(name))


@router.post(
    "/v1/sites/enrol",
    status_code=201,
    response_model=SiteShown,
    summary="Enrol a site with its one-time token",
    description="The only request of a site that is not signed: the token stands for it. Compare the fingerprints "
    "of hub and root key by telephone afterwards.",
    openapi_extra=documents.takes(Enrolment, example=examples.ENROLMENT),
    responses=described(Invalid, Unauthenticated, Conflict, Untrusted, Unavailable),
)
async def enrol(request: Request) -> Any:
    content = await auth.body(request, 2**16)
    return await anyio.to_thread.run_sync(_enrol, auth.hub_of(request), content)


def _enrol(hub: Hub, content: bytes) -> dict[str, Any]:
    given = Enrolment.parse(content, where="enrolment")
    given.certificate.check_for(given.root, given.site, hub.clock())
    token = accounts.hash_token(given.token)
    row = hub.store.redeem_enrolment(token, given.site, given.root, given.certificate)
    hub.directory.put(row)
    return site_shown(hub, row)


@router.post(
    "/v1/sites/me/tasks",
    response_model=Polled,
    summary="Long-poll: what is there to do?",
    description="Answers at once if something changed since `after` (0: always), else after `wait` seconds.",
    openapi_extra=documents.takes(SiteStatus, example=examples.STATUS),
    responses={**_SIGNED, **described(Invalid)},
)
async def poll(
    request: Request,
    caller: Site,
    after: Annotated[int, Query(ge=0, le=2**53 - 1)] = 0,
    wait: Annotated[float, Query(ge=0, le=POLL_SECONDS, description="Seconds.")] = POLL_SECONDS,
) -> Response:
    hub = auth.hub_of(request)
    status = SiteStatus.parse(await auth.signed_body(request, caller, 2**16), where="status")
    if status.protocol != wire.PROTOCOL:
        raise Unsupported(f"This hub serves protocol {wire.PROTOCOL}, not {status.protocol}.", where="status.protocol")
    if hub.scheduler.saw_site(caller.name, status):
        await anyio.to_thread.run_sync(hub.scheduler.note_site, caller.name, status, caller.offset)
    found = await connections.unless_closed(request, hub.board.poll(caller.name, after, wait))
    if found is None:
        return Response(status_code=204)  # nobody reads it
    cursor, tasks = found
    projects, runs = hub.scheduler.standing(caller.name)
    rest = json.dumps({"projects": projects, "runs": runs}, separators=(",", ":")).encode()
    content = b'{"cursor":%d,"tasks":[%s],' % (cursor, b",".join(tasks)) + rest[1:]
    return Response(content, media_type="application/json")


@router.post(
    "/v1/sites/me/bundles/{phase}",
    response_model=Received,
    summary="Send this site's bundle of a phase",
    description="One bundle per site, attempt and phase; `unmask` takes a Release, and is asked again after the hub "
    "was restarted, since released shares are kept in memory only. `seconds` may tell how long the site's own steps "
    "took, `train:1.25,evaluate:0.1`; it is shown with the round's timings.",
    openapi_extra=documents.takes(*examples.BUNDLES, example=examples.KEYS),
    responses={**_SIGNED, **described(Invalid, NotFound, Conflict, Untrusted, TooLarge)},
)
async def post_bundle(
    phase: Phase,
    request: Request,
    caller: Site,
    run: str,
    round: Annotated[int, Query(ge=0, le=2**31 - 1)],
    attempt: Annotated[int, Query(ge=1, le=2**31 - 1)],
    seconds: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    hub = auth.hub_of(request)
    content = await auth.signed_body(request, caller)
    took = _seconds(seconds)
    result = await anyio.to_thread.run_sync(
        hub.scheduler.receive, caller.name, run, round, attempt, phase, content, took
    )
    return Response(b'{"result":"%s"}' % result.encode(), media_type="application/json")


@router.post(
    "/v1/sites/me/trouble",
    response_model=Received,
    summary="Tell that this site cannot do a phase, and why",
    openapi_extra=documents.takes(SiteReport, example=examples.REPORT),
    responses={**_SIGNED, **described(Invalid, NotFound, Conflict)},
)
async def post_trouble(
    request: Request,
    caller: Site,
    run: str,
    round: Annotated[int, Query(ge=0, le=2**31 - 1)],
    attempt: Annotated[int, Query(ge=1, le=2**31 - 1)],
) -> Response:
    hub = auth.hub_of(request)
    content = await auth.signed_body(request, caller, 2**16)
    result = await anyio.to_thread.run_sync(hub.scheduler.report, caller.name, run, round, attempt, content)
    return Response(b'{"result":"%s"}' % result.encode(), media_type="application/json")


def _seconds(text: str) -> dict[str, float]:
    """`train:1.25,evaluate:0.1` as numbers. Raises Invalid."""
    result: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition(":")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not name.isidentifier() or len(name) > 30 or not 0 <= number < 1e7:
            raise Invalid("This is not a list of durations.", where="query.seconds", todo="train:1.25,evaluate:0.1")
        result[name] = number
    return result


@router.put(
    "/v1/sites/me/certificate",
    response_model=SiteShown,
    summary="Renew the certificate of the site's operational keys",
    openapi_extra=documents.takes(Certificate, example=examples.CERTIFICATE),
    responses={**_SIGNED, **described(Invalid, Untrusted, Conflict)},
)
async def put_certificate(request: Request, caller: Site) -> Any:
    hub = auth.hub_of(request)
    content = await auth.signed_body(request, caller, 2**16)

    def renew() -> dict[str, Any]:
        certificate = Certificate.parse(content, where="certificate")
        certificate.check_for(caller.row.root, caller.name, hub.clock())
        row = hub.store.renew_certificate(certificate)
        hub.directory.put(row)
        return site_shown(hub, row)

    return await anyio.to_thread.run_sync(renew)


@router.put(
    "/v1/sites/me/grants",
    status_code=204,
    summary="Hand in a grant that the hospital's root key signed",
    openapi_extra=documents.takes(Grant, example=examples.GRANT),
    responses={**_SIGNED, **described(Invalid, Untrusted, NotFound, Conflict)},
)
async def put_grant(request: Request, caller: Site) -> Response:
    return await _keep(request, caller, Grant, auth.hub_of(request).store.put_grant)


@router.put(
    "/v1/sites/me/revocations",
    status_code=204,
    summary="Hand in a revocation that the hospital's root key signed",
    openapi_extra=documents.takes(Revocation, example=examples.REVOCATION),
    responses={**_SIGNED, **described(Invalid, Untrusted, NotFound)},
)
async def put_revocation(request: Request, caller: Site) -> Response:
    return await _keep(request, caller, Revocation, auth.hub_of(request).store.put_revocation)


async def _keep(request: Request, caller: Caller, kind: type[_Consent], put: Callable[[_Consent], object]) -> Response:
    hub = auth.hub_of(request)
    content = await auth.signed_body(request, caller, 2**20)

    def keep() -> None:
        document = kind.parse(content, where=kind.__name__.lower())
        _check_consent(hub, caller, document)
        put(document)
        hub.scheduler.grants_changed(document.manifest)

    await anyio.to_thread.run_sync(keep)
    return Response(status_code=204)


def _check_consent(hub: Hub, caller: Caller, document: Grant | Revocation) -> None:
    root = hub.store.project(document.manifest).manifest.root_of(caller.name)
    if root is None or document.site != caller.name:
        raise Untrusted(f"{document.site} cannot speak for this project here.", where=f"{document.purpose}.site")
    document.check(root)
