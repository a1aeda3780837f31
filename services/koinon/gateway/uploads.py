"""A site's bytes: masked updates in resumable parts, and the sealed models that it fetches."""

import hashlib
from typing import Annotated, Any

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from koinon.domain import wire
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
from koinon.gateway import auth, documents, downloads
from koinon.gateway.auth import Site
from koinon.gateway.problems import described

router = APIRouter(tags=["sites"])
_SIGNED = described(Unauthenticated, Unsupported, Unavailable, NotFound, Conflict)


class UploadShown(BaseModel):
    size: int = Field(description="Bytes of the whole upload: exactly, or in round 0 at most.")
    part_bytes: int = Field(description="Bytes of every part but the last.")
    parts: list[int] = Field(description="Indices of the parts that are here, complete.")


@router.get(
    "/v1/sites/me/uploads/{run}/{round}/{attempt}",
    response_model=UploadShown,
    summary="Which parts of this site's upload are here",
    responses=_SIGNED,
)
async def parts(run: str, round: int, attempt: int, request: Request, caller: Site) -> Any:
    hub = auth.hub_of(request)

    def look() -> dict[str, Any]:
        upload = hub.scheduler.upload(caller.name, run, round, attempt)
        here = sorted(hub.scheduler.spool.parts(upload))
        return {"size": upload.size, "part_bytes": wire.PART_BYTES, "parts": here}

    return await anyio.to_thread.run_sync(look)


@router.put(
    "/v1/sites/me/uploads/{run}/{round}/{attempt}/{part}",
    status_code=204,
    summary="Send one part of this site's upload",
    description="At most 64 MiB, streamed to disk. It counts when all of it came and matches the signed "
    "Content-Digest; a repeat replaces it. In round 0 only the site that was asked for the first weights uploads, "
    "sealed; the hub knows by itself when they are whole.",
    openapi_extra=documents.takes_bytes("The bytes of the part."),
    responses={**_SIGNED, **described(Invalid, Untrusted, TooLarge)},
)
async def put_part(
    run: str, round: int, attempt: int, part: Annotated[int, Path(ge=0)], request: Request, caller: Site
) -> Response:
    hub = auth.hub_of(request)

    def write() -> None:
        upload = hub.scheduler.upload(caller.name, run, round, attempt)
        next_block = auth.blocks(request, upload.part_size(part))
        digest = hashlib.sha256()
        with hub.scheduler.spool.part(upload, part) as target:
            while block := anyio.from_thread.run(next_block):
                digest.update(block)
                target.write(block)
            auth.check_digest(caller, digest.digest())
        hub.scheduler.part_arrived(upload)

    await anyio.to_thread.run_sync(write)
    return Response(status_code=204)


@router.get(
    "/v1/sites/me/artifacts/{name}",
    summary="Fetch a sealed model",
    description="Takes `Range`.",
    responses={**documents.gives_bytes("The sealed bytes."), **_SIGNED},
)
async def artifact(name: str, request: Request, caller: Site) -> Response:
    return await downloads.respond(auth.hub_of(request).artifacts, name, request.headers.get("Range"))
