"""Trainers are started when a hospital grants, not when a researcher waits; and found to be away before one does.

Only where a trainer has a place of its own anyway, that is in Kubernetes: its cluster runs as long as the grant holds.
"""

from functools import partial
from threading import Lock

import httpx

from koinon.agent.lanes import Lanes
from koinon.agent.policy import Refusal
from koinon.agent.projects import Project
from koinon.agent.site import Site
from koinon.agent.trainers import Trainers
from koinon.agent.troubles import TrainerTrouble
from koinon.domain.errors import KoinonError

EVERY = 10.0  # seconds
_PACKAGE_SECONDS = 60.0


class Warmer:
    """Looks after the trainers of all granted projects, each in the lane of its own training."""

    def __init__(self, site: Site, trainers: Trainers, lanes: Lanes) -> None:
        self._site, self._trainers, self._lanes = site, trainers, lanes
        self._lock = Lock()
        self._waiting: set[str] = set()
        self._said: dict[str, str] = {}

    def run(self) -> None:
        """Until the agent ends."""
        while not self._site.stop.is_set():
            self.look()
            self._site.stop.wait(EVERY)

    def look(self) -> None:
        """Has every trainer looked at that is not at work."""
        for name, project in self._site.book.granted(self._site.clock()).items():
            with self._lock:
                if name in self._waiting:
                    continue
                self._waiting.add(name)
            if not self._lanes.aside(name, partial(self._warm, project)):
                self._done(name)

    def _done(self, name: str) -> None:
        with self._lock:
            self._waiting.discard(name)

    def _warm(self, project: Project) -> None:
        site, said = self._site, ""
        try:
            trainer = self._trainers.get(project, until=site.clock() + _PACKAGE_SECONDS)
            try:
                site.book.project(project.hash, site.clock())
            except Refusal:  # its end was not seen by this trainer
                self._trainers.end(project.hash)
                return
            trainer.warm()
        except (KoinonError, httpx.TransportError) as error:
            said = str(error) or type(error).__name__
        except TrainerTrouble as trouble:
            said = f"the trainer says {trouble.code}"
        except Exception as error:  # a lane must go on
            said = type(error).__name__
        finally:
            self._done(project.hash)
        if said and said != self._said.get(project.hash) and not site.stop.is_set():
            site.log.event("not-warm", project=project.hash, error=said)
        self._said[project.hash] = said
