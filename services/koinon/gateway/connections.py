"""Work that is worth nothing once its caller has gone."""

from collections.abc import Awaitable
from typing import TypeVar

import anyio
from fastapi import Request

T = TypeVar("T")


async def unless_closed(request: Request, work: Awaitable[T]) -> T | None:
    """What `work` gives; None, and `work` cancelled, if the caller closes the connection first.

    A killed site would else seem to wait here until its poll ends. The request's body must have been read.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    result: T | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        result = await work
        group.cancel_scope.cancel()
    return result
