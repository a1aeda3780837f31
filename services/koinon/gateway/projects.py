"""Projects: packages, manifests, and what the hospitals say to them."""

import hashlib
import time
from pathlib import Path
from typing import Annotated, Any

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field, StringConstraints

from koinon.artifacts import files
from koinon.domain import keys, parameters
from koinon.domain.errors import (
    Conflict,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Untrusted,
)
from koinon.domain.manifest import MAX_PACKAGE, Manifest
from koinon.gateway import auth, documents
from koinon.gateway.auth import Either, Researcher
from koinon.gateway.hub import Hub
from koinon.gateway.problems import described
from koinon.store.records import GrantRow, Project

router = APIRouter(tags=["projects"])
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class GrantShown(BaseModel):
    site: str
    state: str = Field(description="pending, granted, expired or revoked", examples=["granted"])
    expires: int | None = Field(default=None, description="Seconds since 1970.")
    fingerprint: str = Field(description="Of the member's root key, to compare on the telephone.")


class ProjectShown(BaseModel):
    hash: str = Field(description="SHA-256 of the manifest's canonical JSON: the project's name for machines.")
    name: str
    owner: str
    created: float
    manifest: dict[str, Any]
    grants: dict[str, GrantShown] = Field(description="One entry for every member.")
    rounds: int = Field(description="Rounds spent of the manifest's limit.")
    releases: int = Field(description="Results released, of the manifest's limit.")


class ProjectList(BaseModel):
    projects: list[ProjectShown]


def shown(project: Project, grants: dict[str, GrantRow], now: float) -> dict[str, Any]:
    """A project as JSON."""
    return {
        "hash": project.hash,
        "name": project.manifest.name,
        "owner": project.owner,
        "created": project.created,
        "manifest": project.manifest.model_dump(mode="json"),
        "grants": {m.site: _grant(m.site, m.root, grants.get(m.site), now) for m in project.manifest.members},
        "rounds": project.rounds,
        "releases": project.releases,
    }


def _grant(site: str, root: str, row: GrantRow | None, now: float) -> dict[str, Any]:
    state = "pending"
    if row is not None and row.revoked:
        state = "revoked"
    elif row is not None and row.grant is not None:
        state = "granted" if now < row.grant.expires else "expired"
    expires = row.grant.expires if row is not None and row.grant is not None else None
    return {"site": site, "state": state, "expires": expires, "fingerprint": keys.fingerprint(root)}


@router.put(
    "/v1/packages/{sha256}",
    status_code=201,
    summary="Store a code package",
    description="A zip file of at most 100 MiB under the SHA-256 of its bytes. Repeatable.",
    openapi_extra=documents.takes_bytes("The zip file."),
    responses=described(Untrusted, TooLarge, Unauthenticated, Unavailable),
)
async def put_package(sha256: Sha256, request: Request, user: Researcher) -> Response:
    hub = auth.hub_of(request)
    next_block = auth.blocks(request, MAX_PACKAGE)

    def keep() -> None:
        seen, size = hashlib.sha256(), 0
        with files.draft(hub.folder.packages / sha256) as file:
            while block := anyio.from_thread.run(next_block):
                seen.update(block)
                size += file.write(block)
            if seen.hexdigest() != sha256:
                raise Untrusted("The package has another hash than its address.", where="body", todo="Send it again.")
        hub.store.add_package(sha256, size)

    await anyio.to_thread.run_sync(keep)
    return Response(status_code=201)


@router.get(
    "/v1/packages/{sha256}",
    summary="Fetch a code package",
    response_class=FileResponse,
    responses={**documents.gives_bytes("The zip file."), **described(NotFound, Unauthenticated)},
)
@router.head("/v1/packages/{sha256}", include_in_schema=False)
async def get_package(sha256: Sha256, request: Request, who: Either) -> Response:
    hub = auth.hub_of(request)
    path: Path = hub.folder.packages / sha256

    def is_here() -> bool:  # both: a hub that died between them needs the package again
        return hub.store.has_package(sha256) and path.is_file()

    if not await anyio.to_thread.run_sync(is_here):
        raise NotFound("There is no such package.", where=f"package {sha256[:12]}")
    return FileResponse(path, media_type="application/octet-stream")


@router.post(
    "/v1/projects",
    status_code=201,
    response_model=ProjectShown,
    summary="Create a project from its manifest",
    description="The manifest is stored under the hash of its canonical JSON and shown to its members as pending. "
    "The same manifest again gives the same project.",
    openapi_extra=documents.takes(Manifest),
    responses=described(Invalid, Conflict, TooLarge, Unauthenticated, Unavailable),
)
async def post_project(request: Request, user: Researcher) -> Any:
    content = await auth.body(request)
    return await anyio.to_thread.run_sync(_add, auth.hub_of(request), user.name, content)


def _add(hub: Hub, owner: str, content: bytes) -> dict[str, Any]:
    manifest = Manifest.parse(content, where="manifest")
    mine = (hub.folder.signing.public, hub.folder.identity.recipient)
    if (manifest.hub.signing, manifest.hub.recipient) != mine:
        raise Invalid(
            "The manifest names another hub's keys.", where="manifest.hub", todo="GET /v1/hub shows this hub's keys."
        )
    for member in manifest.members:
        row = hub.directory.get(member.site)
        if row is None or row.root != member.root:
            raise Invalid(
                f"{member.site} is not enrolled with the root key {keys.fingerprint(member.root)}.",
                where="manifest.members",
                todo="GET /v1/sites lists the enrolled sites and their root keys.",
            )
    if manifest.model.package and not hub.store.has_package(manifest.model.package):
        raise Invalid("The code package is not here yet.", where="manifest.model.package", todo="PUT /v1/packages/HASH")
    defaults = parameters.complete(manifest.parameters, {})
    if manifest.upload_bytes("train", defaults) > manifest.limits.round_bytes:
        raise Invalid("A round's upload is above limits.round_bytes.", where="manifest.limits.round_bytes")
    project = hub.store.add_project(manifest, owner)
    hub.scheduler.project_added(project.hash, [member.site for member in manifest.members])
    return shown(project, hub.store.grants(project.hash), time.time())


@router.get(
    "/v1/projects",
    response_model=ProjectList,
    summary="List projects, newest first",
    responses=described(Unauthenticated, Unavailable),
)
def list_projects(request: Request, user: Researcher) -> Any:
    hub = auth.hub_of(request)
    now = time.time()
    return {"projects": [shown(project, hub.store.grants(project.hash), now) for project in hub.store.projects()]}


@router.get(
    "/v1/projects/{name}",
    response_model=ProjectShown,
    summary="Show a project by hash or name",
    description="For researchers, and for sites that sign the request.",
    responses=described(NotFound, Conflict, Unauthenticated, Unavailable),
)
async def get_project(name: str, request: Request, who: Either) -> Any:
    hub = auth.hub_of(request)

    def find() -> dict[str, Any]:
        project = hub.store.project(name)
        return shown(project, hub.store.grants(project.hash), time.time())

    return await anyio.to_thread.run_sync(find)
