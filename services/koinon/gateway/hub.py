"""What the routes share: one `Hub` per application, made by `app.create`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from koinon.artifacts.stores import ArtifactStore
from koinon.gateway.folder import Folder
from koinon.gateway.metrics import Metrics
from koinon.gateway.probes import Probes
from koinon.scheduler.board import Board
from koinon.scheduler.loop import Scheduler
from koinon.store.store import Store

if TYPE_CHECKING:
    from koinon.gateway.auth import Directory


@dataclass(frozen=True)
class Hub:
    folder: Folder
    store: Store
    artifacts: ArtifactStore
    board: Board
    scheduler: Scheduler
    directory: "Directory"
    metrics: Metrics
    probes: Probes
    clock: Callable[[], float] = time.time
    below: str = ""
    """The path that a proxy before this hub takes off what sites ask for, and have signed."""
    metrics_token: str = field(default="", repr=False)
