"""`serve(folder)` runs a site's agent until SIGTERM or SIGINT, and leaves no process behind."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from types import FrameType

from koinon.agent import site as sites
from koinon.agent.loop import Agent


def serve(folder: Path, *, ready: Callable[[str], None] = print, walls: bool = True) -> None:
    """Serves the site in `folder`; returns when it was told to end.

    `ready` gets one line when it polls. Raises NotFound for a folder that is not enrolled, Conflict if another agent
    serves it, Refused for a hub that is not on this machine.
    """
    stop = Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    site = sites.load(folder, stop=stop, clock=time.time)
    try:
        ready(f"{site.name} serves {site.settings.hub}")
        Agent(site, walls=walls).run()
    finally:
        site.close()
        for number, handler in before.items():
            signal.signal(number, handler)
