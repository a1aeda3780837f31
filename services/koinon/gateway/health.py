"""What a person, Kubernetes and Prometheus ask first: who are you, are you well, what do you count?"""

import shutil
from collections.abc import Callable
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from koinon.aggregation.spool import RESERVE
from koinon.domain import keys, wire
from koinon.domain.errors import KoinonError, Unavailable
from koinon.gateway import auth
from koinon.gateway.hub import Hub

router = APIRouter(tags=["hub"])


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
    checks = await anyio.to_thread.run_sync(_checks, hub)
    ready = all(text == "ok" for text in checks.values())
    body = {"ready": ready, "checks": checks, "retrying": hub.scheduler.troubles()}
    return JSONResponse(body, 200 if ready else 503)


def _checks(hub: Hub) -> dict[str, str]:
    return {
        "database": _outcome(hub.store.ping),
        "artifacts": _outcome(hub.artifacts.check),
        "disk": _outcome(lambda: _check_disk(hub)),
    }


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except KoinonError as error:
        return error.what
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return "ok"


def _check_disk(hub: Hub) -> None:
    free = shutil.disk_usage(hub.folder.root).free
    if free < RESERVE:
        raise Unavailable(f"Only {free} bytes of disk are free.", todo="Make room.")


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def prometheus(request: Request) -> Response:
    hub = auth.hub_of(request)
    for state, count in hub.scheduler.active().items():
        hub.metrics.runs.labels(state).set(count)
    names = hub.directory.names()
    live = sum(hub.scheduler.is_live(name) for name in names)
    hub.metrics.sites.labels("connected").set(live)
    hub.metrics.sites.labels("away").set(len(names) - live)
    hub.metrics.retrying.set(len(hub.scheduler.troubles()))
    return Response(hub.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
