"""Every error as a problem document (RFC 9457): what was wrong, where, and what to do."""

import logging
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from koinon.domain import errors
from koinon.domain.errors import KoinonError

MEDIA_TYPE = "application/problem+json"
_TODO = "GET /openapi.json says what this hub takes."
_log = logging.getLogger(__name__)


class Problem(BaseModel):
    """A problem document. `code` is the class of koinon.domain.errors in lower case."""

    type: str = Field(examples=["https://koinon.dev/problems/invalid"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(description="What was wrong.", examples=['There is no parameter "round".'])
    where: str = Field(default="", description="Which field, header, file or site.", examples=["parameters.round"])
    todo: str = Field(default="", description="What to do about it.", examples=['Did you mean "rounds"?'])
    code: str = Field(description="For programs.", examples=["invalid"])


def document(status: int, code: str, what: str, where: str = "", todo: str = "") -> dict[str, Any]:
    """The fields of a problem document."""
    return {
        "type": f"https://koinon.dev/problems/{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": what,
        "where": where,
        "todo": todo,
        "code": code,
    }


def response(error: KoinonError) -> Response:
    """`error` as an HTTP response. A 401 names the scheme, a 503 says when to come back."""
    headers = {}
    if isinstance(error, errors.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = "1"
    body = document(error.status, error.slug(), error.what, error.where, error.todo)
    return JSONResponse(body, error.status, headers, MEDIA_TYPE)


def described(*kinds: type[KoinonError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route, for its OpenAPI description."""
    return {
        kind.status: {
            "description": (kind.__doc__ or HTTPStatus(kind.status).phrase),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for kind in kinds
    }


def install(app: FastAPI, on_conflict: Callable[[], None], told: Callable[[str], None]) -> None:
    """Problem documents for all errors of `app`, unknown routes and wrong methods included.

    `on_conflict` is called in a thread for every Conflict: it may mean that another hub took over. `told` gets the code
    of every problem.
    """

    def answer(error: KoinonError) -> Response:
        told(error.slug())
        return response(error)

    @app.exception_handler(KoinonError)
    async def koinon_error(request: Request, error: KoinonError) -> Response:
        if isinstance(error, errors.Conflict):
            await anyio.to_thread.run_sync(on_conflict)
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return answer(
            errors.Invalid(f"{first['msg']}.", where=place, todo="See /openapi.json for what this address takes.")
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        where = f"{request.method} {request.url.path}"
        if error.status_code == 404:
            return answer(errors.NotFound("There is nothing at this address.", where=where, todo="See /openapi.json."))
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "")
        told(code)
        body = document(error.status_code, code, f"{error.detail}.", where, _TODO)
        return JSONResponse(body, error.status_code, dict(error.headers or {}), MEDIA_TYPE)

    @app.exception_handler(OSError)
    async def disk_error(request: Request, error: OSError) -> Response:
        _log.error("%s %s: %s", request.method, request.url.path, error)
        away = "The hub's disk does not take or give what this needs."
        return answer(errors.Unavailable(away, todo="Nothing is lost; send it again."))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        incident = secrets.token_hex(6)
        told("internal")
        _log.error("incident %s: %s %s", incident, request.method, request.url.path, exc_info=error)
        body = document(
            500,
            "internal",
            "The hub failed to answer. The failure is in its log.",
            f"incident {incident}",
            "Try again; if it stays, give this incident to the hub's operator.",
        )
        return JSONResponse(body, 500, media_type=MEDIA_TYPE)
