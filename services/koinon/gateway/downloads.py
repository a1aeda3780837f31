"""Sealed bytes on their way out, whole or from where a lost connection ended (RFC 9110, Range)."""

import re
from collections.abc import Iterator

import anyio.to_thread
from fastapi import Response
from fastapi.responses import StreamingResponse

from koinon.artifacts.stores import ArtifactStore

_BLOCK = 2**20
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


async def respond(store: ArtifactStore, name: str, asked: str | None) -> Response:
    """The artifact, or the one range that `asked` (a Range header) names. Raises NotFound, Unavailable."""
    size = await anyio.to_thread.run_sync(store.size, name)
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{name}"'}
    start, end, status = 0, size, 200
    wanted = _RANGE.fullmatch(asked.strip()) if asked else None
    if wanted and (wanted[1] or wanted[2]):
        start, end = _bounds(wanted[1], wanted[2], size)
        if start >= end:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    source = await anyio.to_thread.run_sync(lambda: store.open(name, offset=start, length=end - start))

    def blocks() -> Iterator[bytes]:
        with source:
            while block := source.read(_BLOCK):
                yield block

    return StreamingResponse(blocks(), status, headers, "application/octet-stream")


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """Of `first-last`, `first-` or `-length`: start and end in bytes."""
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size
