"""How requests are read and answers written: in one buffer each way, within bounds, for whoever has the token."""

import hashlib
import hmac
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from koinon.trainer.errors import TrainerError
from koinon.trainer.tensors import Vector

CHUNK = 2**20
MAX_PACKAGE = 100 * 2**20
SAFETENSORS = "application/octet-stream"
M = TypeVar("M", bound=BaseModel)


class Guarded:
    """ASGI middleware: no request without `token` gets further than its head."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "lifespan" or hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
        else:
            await JSONResponse({"code": "unauthenticated"}, 401)(scope, receive, send)


def parse(kind: type[M], text: bytes | bytearray) -> M:
    """Raises TrainerError bad_request."""
    try:
        return kind.model_validate_json(bytes(text))
    except ValidationError as error:
        raise TrainerError("bad_request", str(error.errors(include_input=False, include_url=False))) from None


def _declared(request: Request, limit: int) -> int:
    """The length that the request says it has, 0 if it says none. Raises TrainerError too_large."""
    text = request.headers.get("content-length", "")
    length = int(text) if text.isdigit() else 0
    if length > limit:
        raise TrainerError("too_large", f"{length} bytes, {limit} at most")
    return length


async def receive(request: Request, limit: int) -> bytearray:
    """The body in one buffer. Raises TrainerError too_large, before it is read where it says its length."""
    body = bytearray(_declared(request, limit))
    filled = 0
    async for chunk in request.stream():
        end = filled + len(chunk)
        if end > limit:
            raise TrainerError("too_large", f"more than {limit} bytes")
        body[filled:end] = chunk
        filled = end
    return body


async def receive_package(request: Request, sha256: str, target: Path) -> None:
    """The body into the file `target` if it has that hash. Raises TrainerError too_large, package_invalid."""
    _declared(request, MAX_PACKAGE)
    digest, size, draft = hashlib.sha256(), 0, target.with_suffix(".part")
    try:
        with draft.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_PACKAGE:
                    raise TrainerError("too_large", f"more than {MAX_PACKAGE} bytes")
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise TrainerError("package_invalid", f"what came has the hash {digest.hexdigest()}, not {sha256}")
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def tensors(header: bytes, vectors: tuple[Vector, ...], size: int) -> Response:
    """A header and the values of vectors, in chunks."""

    async def chunks() -> AsyncIterator[bytes | memoryview]:
        yield header
        for vector in vectors:
            whole = np.ascontiguousarray(vector, "<f4").view(np.uint8).data
            for first in range(0, len(whole), CHUNK):
                yield whole[first : first + CHUNK]

    return StreamingResponse(chunks(), headers={"content-length": str(size)}, media_type=SAFETENSORS)
