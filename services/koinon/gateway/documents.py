"""Request and response bodies in the OpenAPI document. Bodies are parsed by the domain (`Wire.parse`), which refuses
repeated keys and names the field; here they are only described."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from koinon.gateway.problems import Problem

_described: dict[str, type[BaseModel]] = {"Problem": Problem}
_REF = "#/components/schemas/{model}"


def takes(*models: type[BaseModel], example: Any = None, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route whose JSON body is one of `models`."""
    for model in models:
        _described[model.__name__] = model
    refs = [{"$ref": _REF.format(model=model.__name__)} for model in models]
    media: dict[str, Any] = {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}}
    if example is not None:
        media["example"] = example
    return {"requestBody": {"required": required, "content": {"application/json": media}}}


def takes_bytes(description: str) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is bytes."""
    media = {"schema": {"type": "string", "format": "binary"}}
    content = {"application/octet-stream": media}
    return {"requestBody": {"required": True, "description": description, "content": content}}


def gives_bytes(description: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that answers with bytes."""
    media = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"description": description, "content": {"application/octet-stream": media}}}


def install(app: FastAPI, description: str) -> None:
    """`app.openapi` with the described bodies and both ways to authenticate."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=description, routes=app.routes)
            _, definitions = models_json_schema(
                [(model, "validation") for model in _described.values()], ref_template=_REF
            )
            parts = document.setdefault("components", {})
            parts.setdefault("schemas", {}).update(definitions.get("$defs", {}))
            parts.setdefault("securitySchemes", {})["SiteSignature"] = {
                "type": "apiKey",
                "in": "header",
                "name": "Signature",
                "description": "HTTP message signature (RFC 9421, Ed25519, tag `koinon`) over @method, @path, @query "
                "and content-digest, with the key of the site's certificate and the site's name as keyid; `created` "
                "within 300 s of the hub's clock. The header `Koinon-Protocol: 1` names the protocol.",
            }
            for operations in document["paths"].values():
                for operation in operations.values():
                    _describe_validation(operation)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_validation(operation: dict[str, Any]) -> None:
    """FastAPI describes its own error body for 422; here it is a problem document like all others."""
    answer = operation.get("responses", {}).get("422")
    if answer is not None:
        answer["content"] = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
        answer["description"] = "The input itself is wrong."
