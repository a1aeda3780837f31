"""What a federation that is over leaves behind: nothing."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

from koinon.client.supervisor import descendants


def processes(seconds: float = 5.0) -> list[str]:
    """The command lines of all processes below this one that are still there after `seconds`.

    Call it when this process waits for none of its own: it buries the dead.
    """
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = descendants(os.getpid())
        if not left or time.monotonic() > until:
            return [_command(pid) for pid in left]
        time.sleep(0.05)


def _command(pid: int) -> str:
    try:
        return f"{pid} " + Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return f"{pid}"


def folders() -> set[Path]:
    """Folders of Koinon's own among the temporary ones."""
    places = {Path(tempfile.gettempdir()), Path("/tmp")}
    return {path for place in places for name in ("kn-*", "koinon-*") for path in place.glob(name)}
