"""What a person, Kubernetes and Prometheus ask first: who are you, are you well, what do you count?"""

import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from koinon.aggregation.spool import RESERVE
from koinon.artifacts.stores import ArtifactStore
from koinon.domain import keys, wire
from koinon.domain.errors import Forbidden, Unauthenticated, Unavailable
from koinon.domain.loopback import is_loopback
from koinon.gateway import auth, metrics, snapshot
from koinon.gateway.problems import described
from koinon.store.store import Store

router = APIRouter(tags=["hub"])
_READY_PATIENCE, _SCRAPE_PATIENCE = 20.0, 4.0  # seconds; a scrape is given up after 10


class About(BaseModel):
    protocol: int
    version: str
    signing: str = Field(description="The hub's public signing key (Ed25519, hex), which manifests pin.")
    recipient: str = Field(description="The hub's age recipient.")
    fingerprint: str = Field(description="Of the signing key, to compare on the telephone.")


class Health(BaseModel):
    ready: bool
    checks: dict[str, str] = Field(description='Per part "ok" or what is wrong.')
    retrying: list[str] = Field(description="Steps of runs that failed and are being tried again.")


@router.get("/v1/hub", response_model=About, summary="Keys, version and protocol of this hub")
async def about(request: Request) -> Any:
    hub = auth.hub_of(request)
    public = hub.folder.signing.public
    return {
        "protocol": wire.PROTOCOL,
        "version": request.app.version,
        "signing": public,
        "recipient": hub.folder.identity.recipient,
        "fingerprint": keys.fingerprint(public),
    }


@router.get("/healthz", summary="Does the process answer?")
async def healthz() -> dict[str, bool]:
    return {"ok": True}


@router.get("/readyz", response_model=Health, summary="Can it work now, and if not, what is away?",
            responses={503: {"model": Health, "description": "Something is away; requests that need it get 503."}},
            )  # fmt: skip
async def readyz(request: Request) -> Response:
    hub = auth.hub_of(request)
    checks = await hub.probes.look(_READY_PATIENCE)
    ready = all(outcome.ok for outcome in checks.values())
    told = {part: outcome.text for part, outcome in checks.items()}
    body = {"ready": ready, "checks": told, "retrying": hub.scheduler.troubles()}
    return JSONResponse(body, 200 if ready else 503)


def checks(store: Store, artifacts: ArtifactStore, folder: Path) -> Mapping[str, Callable[[], None]]:
    """What /readyz tries; each raises KoinonError or OSError."""
    return {"database": store.ping, "artifacts": artifacts.check, "disk": lambda: _check_disk(folder)}


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < RESERVE:
        raise Unavailable(f"Only {free} bytes of disk are free.", todo="Make room.")


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response,
            description="They name sites, projects and runs: with the bearer token that KOINON_METRICS_TOKEN is at the "
            "hub; without such a token for callers on the hub's own machine alone.",
            responses=described(Unauthenticated, Forbidden))  # fmt: skip
async def prometheus(request: Request) -> Response:
    hub = auth.hub_of(request)
    _check_reader(request, hub.metrics_token)
    found = await hub.probes.look(_SCRAPE_PATIENCE)

    def text() -> bytes:
        return hub.metrics.text(snapshot.families(hub, found))

    content = await anyio.to_thread.run_sync(text, limiter=hub.metrics.scrapes)
    return Response(content, media_type=metrics.CONTENT_TYPE)


def _check_reader(request: Request, token: str) -> None:
    """Raises Unauthenticated, Forbidden."""
    if token:
        given = request.headers.get("Authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Unauthenticated(
                "The metrics name sites and runs; reading them needs their token.",
                where="Authorization",
                todo="Send the hub's KOINON_METRICS_TOKEN as bearer token.",
            )
    elif request.client is None or not is_loopback(request.client.host):
        raise Forbidden(
            "The metrics name sites and runs; without a token only this machine may read them.",
            where="/metrics",
            todo="Start the hub with KOINON_METRICS_TOKEN, and give it to Prometheus.",
        )
