"""Runs: submit, list, show, cancel, delete."""

import secrets
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field

from koinon.domain import canonical, parameters
from koinon.domain.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from koinon.domain.keys import Wire
from koinon.domain.run import RunState, is_final
from koinon.gateway import auth, documents, history
from koinon.gateway.auth import Researcher
from koinon.gateway.hub import Hub
from koinon.gateway.problems import described
from koinon.store.records import Project, Run

router = APIRouter(tags=["runs"])
_EXAMPLE = {"project": "heart", "parameters": {"rounds": 15, "strategy": "fedyogi", "learning_rate": "0.01"}}


class RunRequest(Wire):
    """`project` by hash or name; `parameters` within the manifest's schema, its defaults for the rest."""

    project: str = Field(min_length=1, max_length=64)
    parameters: dict[str, int | float | str] = Field(default={})


class Waiting(BaseModel):
    whom: str = Field(alias="for", description='A site, or "hub".')
    since: float
    until: float
    why: str
    todo: str


class RunShown(BaseModel):
    id: str
    project: str
    owner: str
    parameters: dict[str, int | str]
    state: str = Field(description="queued, running, completed, failed or cancelled", examples=["running"])
    reason: str = Field(description="Why it failed or was cancelled.")
    created: float
    started: float | None
    finished: float | None
    version: int = Field(description="Of the model: commits of training rounds, -1 before the first weights.")
    model: dict[str, Any] | None
    result: dict[str, Any] | None


class RunDetail(RunShown):
    waiting: list[Waiting] = Field(description="For whom it waits, since when, until when, why, and what to do.")
    rounds: list[dict[str, Any]] = Field(description="Its newest rounds; all of them at /rounds.")


class RunList(BaseModel):
    runs: list[RunShown]


def shown(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "id": run.id,
        "project": run.project,
        "owner": run.owner,
        "parameters": run.parameters,
        "state": run.state.value,
        "reason": run.reason,
        "created": run.created,
        "started": run.started,
        "finished": run.finished,
        "version": run.version,
        "model": run.model.model_dump() if run.model else None,
        "result": run.result.model_dump() if run.result else None,
    }


@router.post(
    "/v1/runs",
    status_code=201,
    response_model=RunShown,
    summary="Submit a run",
    description="With the same Idempotency-Key the same request gives the same run (200 instead of 201).",
    openapi_extra=documents.takes(RunRequest, example=_EXAMPLE),
    responses=described(Invalid, NotFound, Conflict, Forbidden, Unauthenticated, Unavailable),
)
async def submit(
    request: Request,
    response: Response,
    user: Researcher,
    idempotency_key: Annotated[str | None, Header(max_length=200, description="Makes a repeat safe.")] = None,
) -> Any:
    content = await auth.body(request, 2**20)
    hub = auth.hub_of(request)
    run, new = await anyio.to_thread.run_sync(_submit, hub, user.name, content, idempotency_key)
    response.status_code = 201 if new else 200
    return shown(run)


def _submit(hub: Hub, user: str, content: bytes, key: str | None) -> tuple[Run, bool]:
    asked = RunRequest.parse(content, where="run")
    project = hub.store.project(asked.project)
    if project.owner != user:
        raise Forbidden(f"The project {project.manifest.name} is {project.owner}'s.", todo="Ask its owner to submit.")
    chosen = parameters.complete(project.manifest.parameters, asked.parameters)
    _check_limits(project, chosen)
    drawn = secrets.token_hex(6)
    digest = canonical.digest({"project": project.hash, "parameters": chosen})
    run = hub.store.add_run(drawn, project.hash, user, chosen, key=key, digest=digest)
    hub.scheduler.submitted(run)
    return run, run.id == drawn


def _check_limits(project: Project, chosen: parameters.Parameters) -> None:
    limits = project.manifest.limits
    if project.releases >= limits.releases:
        raise Invalid(
            "The project's results are used up.", where="manifest.limits.releases", todo="Make a new project."
        )
    left, wanted = limits.rounds - project.rounds, int(chosen["rounds"]) + 1
    if wanted > left:
        raise Invalid(
            f"{wanted} rounds are wanted (with the last evaluation), {left} are left of the project's {limits.rounds}.",
            where="parameters.rounds",
            todo="Ask for fewer, or make a new project.",
        )
    size = project.manifest.upload_bytes("train", chosen)
    if size > limits.round_bytes:
        raise Invalid(
            f"A round's update has {size} bytes, above {limits.round_bytes}.", where="manifest.limits.round_bytes"
        )


@router.get("/v1/runs", response_model=RunList, summary="List runs, newest first",
            responses=described(NotFound, Unauthenticated, Unavailable))  # fmt: skip
def list_runs(
    request: Request,
    user: Researcher,
    project: Annotated[str | None, Query(description="Hash or name.")] = None,
    state: RunState | None = None,
    owner: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Any:
    store = auth.hub_of(request).store
    name = store.project(project).hash if project else None
    return {"runs": [shown(run) for run in store.runs(project=name, owner=owner, state=state, limit=limit)]}


@router.get("/v1/runs/{run}", response_model=RunDetail, response_model_by_alias=True, summary="Show a run",
            responses=described(NotFound, Unauthenticated, Unavailable))  # fmt: skip
def get_run(run: str, request: Request, user: Researcher) -> Any:
    hub = auth.hub_of(request)
    row = hub.store.run(run)
    return {**shown(row), "waiting": hub.scheduler.waiting(run), "rounds": history.rounds_shown(hub, run, 3)}


@router.post("/v1/runs/{run}/cancel", response_model=RunShown, summary="Cancel a run",
             responses=described(NotFound, Conflict, Forbidden, Unauthenticated, Unavailable))  # fmt: skip
def cancel(run: str, request: Request, user: Researcher) -> Any:
    hub = auth.hub_of(request)
    _require_owner(hub, run, user.name)
    return shown(hub.scheduler.cancel(run, f"Cancelled by {user.name}."))


@router.delete("/v1/runs/{run}", status_code=204, summary="Delete a finished run and its artifacts",
               description="The chain of its events stays.",
               responses=described(NotFound, Conflict, Forbidden, Unauthenticated, Unavailable))  # fmt: skip
def delete(run: str, request: Request, user: Researcher) -> Response:
    hub = auth.hub_of(request)
    row = _require_owner(hub, run, user.name)
    if not is_final(row.state):
        raise Conflict(f"Run {run} is {row.state}.", todo=f"koinon run cancel {run}")
    for artifact in hub.store.artifacts(run):
        hub.artifacts.delete(artifact.ref.name)
    hub.store.delete_run(run)
    return Response(status_code=204)


def _require_owner(hub: Hub, run: str, user: str) -> Run:
    row = hub.store.run(run)
    if row.owner != user:
        raise Forbidden(f"Run {run} is {row.owner}'s.")
    return row
