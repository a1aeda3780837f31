"""The site's log, for the hospital alone: one line of JSON an event in log/agent.log; in Kubernetes on stdout too.

The full text of a trainer's error stays here, under the incident id that crosses to the hub. Keys, shares, updates and
model values are never given to it.
"""

import json
import logging
import logging.handlers
import re
import secrets
import sys
import time
import traceback
from pathlib import Path
from threading import Condition
from typing import Any

_MAX_BYTES = 16 * 2**20
_KEPT = 4
_MAX_FIELD = 64 * 2**10
_KEPT_LINES = 200
_INCIDENT = re.compile(r"incident ([0-9a-f]{12})")


def new_incident() -> str:
    return secrets.token_hex(6)


class Log:
    """Rotated at 16 MiB, five files at most: whatever research code prints, the disk stays bounded."""

    def __init__(self, path: Path, *, stdout: bool = False) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=_KEPT, encoding="utf-8")
        self._handlers: list[logging.Handler] = [file, *([logging.StreamHandler(sys.stdout)] if stdout else [])]
        for handler in self._handlers:
            handler.setFormatter(logging.Formatter("%(message)s"))

    def event(self, kind: str, **fields: Any) -> None:
        """One line: time (UTC, seconds since 1970), event, fields."""
        shown = {key: value[:_MAX_FIELD] if isinstance(value, str) else value for key, value in fields.items()}
        line = json.dumps({"time": round(time.time(), 3), "event": kind, **shown}, ensure_ascii=False, default=str)
        for handler in self._handlers:
            handler.handle(logging.LogRecord("koinon.agent", logging.INFO, "", 0, line, None, None))

    def failure(self, kind: str, error: BaseException, incident: str, **fields: Any) -> None:
        """An event with the full text of an exception."""
        text = "".join(traceback.format_exception(error, limit=-40))
        self.event(kind, incident=incident, text=text, **fields)

    def close(self) -> None:
        for handler in self._handlers:
            handler.close()


class TrainerLog:
    """Lines of a trainer's output; those of an error carry its incident id, as the trainer printed it first.

    The lines of the last incident are kept, to be logged again under the id that crosses to the hub: that one the agent
    draws itself, so that no bit of it is research code's choice.
    """

    def __init__(self, log: Log, project: str) -> None:
        self._log = log
        self._project = project
        self._incident = ""
        self._lines: list[str] = []
        self._seen = Condition()

    def __call__(self, line: str) -> None:
        found = _INCIDENT.search(line)
        with self._seen:
            if found:
                self._incident, self._lines = found[1], []
                self._seen.notify_all()
            if self._incident and len(self._lines) < _KEPT_LINES:
                self._lines.append(line)
        extra = {"trainer_incident": self._incident} if self._incident else {}
        self._log.event("trainer", project=self._project, text=line, **extra)

    def of_incident(self, incident: str | None) -> str:
        """What the trainer printed about it; waits a moment for lines that are still on their way."""
        if incident is None:
            return ""
        with self._seen:
            self._seen.wait_for(lambda: self._incident == incident, timeout=1.0)
            if self._incident != incident:
                return ""
            self._seen.wait_for(lambda: len(self._lines) >= _KEPT_LINES, timeout=0.2)
            return "\n".join(self._lines)
