"""`serve(folder)` runs a site's agent until SIGTERM or SIGINT, and leaves no process behind."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from types import FrameType

from koinon.agent import site as sites
from koinon.agent.loop import Agent


@contextlib.contextmanager
def _shown(agent: Agent, address: str) -> Iterator[None]:
    from koinon.agent.status import Server

    server = Server(agent, address)
    try:
        yield
    finally:
        server.close()


def serve(
    folder: Path, settings: Path | None = None, *, ready: Callable[[str], None] = print, walls: bool = True
) -> None:
    """Serves the site in `folder`; returns when it was told to end. `settings`: its site.yaml, if that is elsewhere.

    `ready` gets one line when it polls. Raises NotFound for a folder that is not enrolled, Conflict if another agent
    serves it, Refused for a hub that a site of this form may not serve.
    """
    stop = Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    site = sites.load(folder, stop=stop, clock=time.time, settings_file=settings)
    try:
        given = site.settings.kubernetes
        agent = Agent(site, walls=walls)
        with _shown(agent, given.status) if given is not None else contextlib.nullcontext():
            if given is None:
                ready(f"{site.name} serves {site.settings.hub}")
            agent.run()
    finally:
        site.close()
        for number, handler in before.items():
            signal.signal(number, handler)
