"""What a run went through: its hash-chained events as they come, its rounds, metrics and sealed artifacts."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from koinon.domain.errors import NotFound, Unauthenticated, Unavailable
from koinon.domain.run import RoundState, is_final
from koinon.gateway import auth, documents, downloads
from koinon.gateway.auth import Researcher
from koinon.gateway.hub import Hub
from koinon.gateway.problems import described
from koinon.store.records import Event

MAX_SEQ = 2**53 - 1
router = APIRouter(tags=["runs"])
HEARTBEAT_SECONDS = 15.0


class EventList(BaseModel):
    events: list[dict[str, Any]]


class MetricList(BaseModel):
    metrics: list[dict[str, Any]] = Field(
        description="Per model `version` its `metrics`: `mean` over sites (the headline) and `pooled` over rows."
    )


class RoundList(BaseModel):
    rounds: list[dict[str, Any]] = Field(
        description="Number, kind, state, survivors, bytes, and `seconds` by part and by site."
    )


class ArtifactList(BaseModel):
    artifacts: list[dict[str, Any]]


def rounds_shown(hub: Hub, run: str, last: int | None = None) -> list[dict[str, Any]]:
    return [
        {
            "number": row.number,
            "kind": row.kind.value,
            "state": row.state.value,
            "opened": row.opened,
            "closed": row.closed,
            "version": row.version,
            "seconds": row.seconds,
            "bytes": row.bytes,
            "survivors": list(row.survivors),
            **_attempt(hub, run, row.number, row.state),
        }
        for row in hub.store.rounds(run, last)
    ]


def _attempt(hub: Hub, run: str, number: int, state: RoundState) -> dict[str, Any]:
    """Of an open round: its attempt, phase, deadline and who reported trouble."""
    if state is not RoundState.OPEN:
        return {}
    attempt = hub.store.attempts(run, number)[-1]
    troubles = hub.store.troubles(run, number, attempt.number)
    return {
        "attempt": attempt.number,
        "phase": attempt.phase.value,
        "deadline": attempt.deadline,
        "invited": list(attempt.opening.invited),
        "troubles": {site: trouble.model_dump(mode="json") for site, trouble in troubles.items()},
    }


@router.get(
    "/v1/runs/{run}/events",
    response_model=EventList,
    summary="The run's hash-chained events",
    description="JSON, or with `Accept: text/event-stream` server-sent events until the run is over: the chain's "
    "events with their `seq` as id (go on with `Last-Event-ID` or `after`), and between them events of kind "
    "`waiting`, which are not part of the chain.",
    responses={200: {"content": {"text/event-stream": {}}}, **described(NotFound, Unauthenticated, Unavailable)},
)
async def events(
    run: str,
    request: Request,
    user: Researcher,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ)] = 0,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Any:
    hub = auth.hub_of(request)
    if last_event_id and last_event_id.isdigit():
        after = min(max(after, int(last_event_id)), MAX_SEQ)
    found = await anyio.to_thread.run_sync(hub.store.events, run, after)
    if not found and after == 0:
        raise NotFound(f"There is no run {run}.")
    if "text/event-stream" not in request.headers.get("Accept", ""):
        return {"events": [event_shown(event) for event in found]}
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(hub, run, after), media_type="text/event-stream", headers=headers)


def event_shown(event: Event) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "time": event.time,
        "kind": event.kind,
        "data": event.data,
        "previous": event.previous,
        "hash": event.hash,
    }


async def _stream(hub: Hub, run: str, after: int) -> AsyncIterator[bytes]:
    """Events as they come; between them who is waited for, whenever that changes; a comment as heartbeat."""
    told = ""
    while True:
        watch = hub.board.watcher(run)
        try:
            found = await anyio.to_thread.run_sync(hub.store.events, run, after)
            waits = await anyio.to_thread.run_sync(hub.scheduler.waiting, run)
            over = await anyio.to_thread.run_sync(_is_over, hub, run)
        except Unavailable:  # the database is away: the client comes back where it was
            return
        for event in found:
            after = event.seq
            text = json.dumps(event_shown(event), separators=(",", ":"))
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {text}\n\n".encode()
        text = json.dumps({"kind": "waiting", "seq": after, "waiting": waits}, separators=(",", ":"))
        if waits and text != told:
            told = text
            yield f"event: waiting\ndata: {text}\n\n".encode()
        if (over and not found) or hub.board.closing:
            return
        if not found and not await watch(HEARTBEAT_SECONDS):
            yield b": still here\n\n"


def _is_over(hub: Hub, run: str) -> bool:
    try:
        return is_final(hub.store.run(run).state)
    except NotFound:  # deleted: only its chain is left
        return True


@router.get("/v1/runs/{run}/metrics", response_model=MetricList, summary="How each model of the run scored",
            responses=described(NotFound, Unauthenticated, Unavailable))  # fmt: skip
def metrics(run: str, request: Request, user: Researcher) -> Any:
    store = auth.hub_of(request).store
    store.run(run)
    return {"metrics": [{"version": version, "metrics": scores} for version, scores in store.metrics(run)]}


@router.get("/v1/runs/{run}/rounds", response_model=RoundList, summary="The run's rounds and where their time went",
            responses=described(NotFound, Unauthenticated, Unavailable))  # fmt: skip
def rounds(run: str, request: Request, user: Researcher) -> Any:
    hub = auth.hub_of(request)
    hub.store.run(run)
    return {"rounds": rounds_shown(hub, run)}


@router.get("/v1/runs/{run}/artifacts", response_model=ArtifactList, summary="What the hub holds of it, all sealed",
            responses=described(NotFound, Unauthenticated, Unavailable))  # fmt: skip
def artifacts(run: str, request: Request, user: Researcher) -> Any:
    store = auth.hub_of(request).store
    store.run(run)
    found = [{**item.ref.model_dump(), "kind": item.kind, "round": item.round} for item in store.artifacts(run)]
    return {"artifacts": found}


@router.get(
    "/v1/runs/{run}/artifacts/{name}",
    summary="Fetch a sealed artifact",
    description="Takes `Range`. Only its recipients can open it.",
    responses={**documents.gives_bytes("The sealed bytes."), **described(NotFound, Unauthenticated, Unavailable)},
)
async def artifact(run: str, name: str, request: Request, user: Researcher) -> Response:
    hub = auth.hub_of(request)
    listed = await anyio.to_thread.run_sync(hub.store.artifacts, run)
    if name not in {item.ref.name for item in listed}:
        raise NotFound(f"Run {run} has no artifact {name[:12]}.", todo=f"GET /v1/runs/{run}/artifacts lists them.")
    return await downloads.respond(hub.artifacts, name, request.headers.get("Range"))
