"""When somebody keeps changing what the operator keeps: repaired at once for a while, then ever more seldom. Pure.

Two controllers that undo each other's work would otherwise do so for ever, at the API server's cost. Times are of a
clock that is never set back: by another a pause would last as long as the jump.
"""

from dataclasses import dataclass, field

FREE = 10
"""Repairs of one object within CALM_SECONDS that are made at once."""
CALM_SECONDS = 600.0
FIRST_SECONDS = 10.0
LONGEST_SECONDS = 600.0


@dataclass
class Fights:
    _times: dict[str, list[float]] = field(default_factory=dict)

    def wait(self, what: str, now: float) -> float:
        """Seconds to wait before `what` is repaired; 0 if it may be now."""
        times = self._times.get(what, [])
        if not times or now - times[-1] >= self._pause(times):
            return 0.0
        return self._pause(times) - (now - times[-1])

    def repaired(self, what: str, now: float) -> None:
        """It was repaired now. Its past counts until it has been calm for CALM_SECONDS beyond its pause."""
        times = self._times.get(what, [])
        if times and now - times[-1] > CALM_SECONDS + self._pause(times):
            times = []
        self._times[what] = [*times, now]

    def contested(self, what: str, now: float) -> bool:
        return self.wait(what, now) > 0

    def forget(self, before: float) -> None:
        """Lets go of what was last repaired before that time."""
        self._times = {what: times for what, times in self._times.items() if times[-1] >= before}

    @staticmethod
    def _pause(times: list[float]) -> float:
        """After the last of these repairs."""
        more = len(times) - FREE
        return 0.0 if more < 0 else min(LONGEST_SECONDS, FIRST_SECONDS * 2.0**more)
