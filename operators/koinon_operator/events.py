"""Events: what a hospital's admin reads with `kubectl describe`. The same one is not told again for some time."""

import logging
import threading
import time
from collections.abc import Callable

from koinon.domain.errors import KoinonError
from koinon_operator.kinds import Object
from koinon_operator.kube import Kube
from koinon_operator.status import time_text

log = logging.getLogger("koinon.operator")

QUIET_SECONDS = 600.0


class Recorder:
    def __init__(self, kube: Kube, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._told: dict[tuple[str, str, str], float] = {}
        self._lock = threading.Lock()

    def say(self, about: Object, reason: str, message: str) -> None:
        self._tell(about, reason, message, warning=False)

    def warn(self, about: Object, reason: str, message: str) -> None:
        self._tell(about, reason, message, warning=True)

    def _tell(self, about: Object, reason: str, message: str, *, warning: bool) -> None:
        """Never raises: an event that cannot be written must not stop the work that it tells of."""
        now = self._clock()
        key = (str(about["metadata"].get("uid", "")), reason, message)
        with self._lock:
            self._told = {k: when for k, when in self._told.items() if now - when < QUIET_SECONDS}
            if key in self._told:
                return
            self._told[key] = now
        place = f"{about['metadata']['namespace']}/{about['metadata']['name']}"
        log.log(logging.WARNING if warning else logging.INFO, "%s %s: %s", place, reason, message)
        try:
            self._kube.event(about, warning=warning, reason=reason, message=message, when=time_text(time.time()))
        except KoinonError as error:
            log.warning("%s: the event %s was not written: %s", place, reason, error)
