"""A run: how it goes, what it learned, and what came of it."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from koinon.client import progress, results
from koinon.client.http import pause
from koinon.client.progress import Step
from koinon.domain import errors
from koinon.domain.manifest import Manifest

if TYPE_CHECKING:
    from koinon.client.hub import Hub

FINAL = ("completed", "failed", "cancelled")
# How the hub tells that a hospital's own policy, and not an accident, ended the run: the codes of koinon.agent.policy.
_REFUSAL = re.compile(
    r"refuse|grant the project|did not grant|reported (no grant|bad grant|expired|revoked|outside limits|not a member|"
    r"rounds spent|releases spent|round too large|too few sites)"
)
_SILENCE = 60.0  # seconds without a sign of life, then the state is asked for
_REFUSALS = 30  # in a row, at up to 5 s each, before watching gives up: a hub may restart meanwhile


class Run:
    """One run at one hub. What is printed of it is what the hub said last; `refresh` asks again."""

    def __init__(self, hub: "Hub", row: dict[str, Any]) -> None:
        self.hub = hub
        self.row = row
        self.created_now = False
        self._manifest: Manifest | None = None

    def __repr__(self) -> str:
        return f"Run({self.id}, {self.state})"

    @property
    def id(self) -> str:
        return str(self.row["id"])

    @property
    def state(self) -> str:
        return str(self.row["state"])

    @property
    def reason(self) -> str:
        return str(self.row.get("reason") or "")

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.row.get("parameters") or {})

    @property
    def path(self) -> str:
        return f"/v1/runs/{quote(self.id, safe='')}"

    @property
    def finished(self) -> bool:
        return self.state in FINAL

    def refresh(self) -> "Run":
        self.row = self.hub.connection.get(self.path)
        return self

    def waiting(self) -> list[dict[str, Any]]:
        """For whom the run waits now: `{"for", "since", "until", "why"}`."""
        return list(self.refresh().row.get("waiting") or [])

    def cancel(self) -> "Run":
        self.hub.connection.post(f"{self.path}/cancel", {})
        return self.refresh()

    def delete(self) -> None:
        """Removes the finished run with its artifacts from the hub. Raises Conflict while it goes on."""
        self.hub.connection.delete(self.path)

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """The run's hash-chained events."""
        found = self.hub.connection.get(f"{self.path}/events", after=after)
        return list(found.get("events", []) if isinstance(found, dict) else found)

    def rounds(self) -> list[dict[str, Any]]:
        """Every round as the hub tells it: state, timings, bytes, survivors."""
        found = self.hub.connection.get(f"{self.path}/rounds")
        return list(found.get("rounds", []) if isinstance(found, dict) else found)

    def metrics(self) -> list[tuple[int, dict[str, dict[str, float]]]]:
        """`(model, {metric: {"mean", "pooled"}})`: what each model of the run scored, oldest first."""
        found = self.hub.connection.get(f"{self.path}/metrics")
        rows = found.get("metrics", []) if isinstance(found, dict) else found
        return [(int(row["version"]), dict(row["metrics"])) for row in rows]

    def manifest(self) -> Manifest:
        """Of the run's project; asked for once."""
        if self._manifest is None:
            self._manifest = self.hub.project(str(self.row["project"])).manifest
        return self._manifest

    def steps(self) -> list[Step]:
        """The rounds that are over, one Step each."""
        fold = self._fold()
        return [step for event in self.events() if (step := fold.take(event)) is not None]

    def watch(self, timeout: float | None = None, *, waits: Callable[[str], None] | None = None) -> Iterator[Step]:
        """Yields a Step as soon as a round is over, until the run is; rounds of before come first.

        `waits` is told for whom the run waits, whenever that changes. The line to the hub may break and come back.
        Raises Failed with the reason if the run fails or is cancelled, Refused if a site refused it, Waiting after
        `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        fold, refused = self._fold(), 0
        while True:
            left = _SILENCE if until is None else until - time.monotonic()
            try:
                for event in self.hub.connection.events(
                    f"{self.path}/events", fold.last, silence=min(_SILENCE, max(0.1, left))
                ):
                    if event.get("kind") == "waiting" and waits is not None:
                        waits(progress.describe_waits(event["waiting"]))
                    step = fold.take(event)
                    if step is not None:
                        yield step
                    if until is not None and time.monotonic() > until:
                        break
            except errors.Unavailable:
                time.sleep(pause(1))  # a proxy may have cut the line: whether the hub answers counts
            try:
                if self.refresh().finished:
                    # The stream may have ended with the hub, before the last events.
                    rest = self.events(fold.last)
                    break
                refused = 0
            except errors.Unavailable:
                refused += 1
                if refused > _REFUSALS:
                    raise
                time.sleep(pause(refused))
            if until is not None and time.monotonic() > until:
                raise self.late(timeout or 0)
        yield from (step for event in rest if (step := fold.take(event)) is not None)
        self.require_success()

    def _fold(self) -> progress.Fold:
        return progress.Fold(tuple(member.site for member in self.manifest().members))

    def wait(self, timeout: float | None = None) -> "Run":
        """Until the run is over. Raises as `watch` does."""
        for _ in self.watch(timeout):
            pass
        return self

    def require_success(self) -> None:
        """Raises Failed (or Refused, if a site refused) unless the run completed or goes on."""
        if self.state == "failed":
            kind = errors.Refused if _REFUSAL.search(self.reason) else errors.Failed
            raise kind(
                self.reason or "The run failed.", where=f"run {self.id}", todo=f"koinon run show {self.id} --timing"
            )
        if self.state == "cancelled":
            raise errors.Failed("The run was cancelled.", where=f"run {self.id}")

    def late(self, timeout: float) -> errors.Waiting:
        waits = progress.describe_waits(self.waiting()) or "it goes on"
        return errors.Waiting(
            f"Not over after {timeout:.0f} s: {waits}.",
            where=f"run {self.id}",
            todo=f"It goes on. koinon run watch {self.id}",
        )

    def table(self) -> Any:
        """One row a model: its metrics and the round that scored it. A pandas DataFrame where pandas is installed."""
        return results.table(self.steps())

    def artifacts(self) -> list[dict[str, Any]]:
        """What the hub holds of the run: name, bytes, kind, round. All of it sealed."""
        found = self.hub.connection.get(f"{self.path}/artifacts")
        return list(found.get("artifacts", []) if isinstance(found, dict) else found)

    def download(self, target: str | Path, *, key: Path | None = None) -> Path:
        """The result, opened with your key, as a safetensors file. Raises Untrusted if it is not sealed to you."""
        return results.download(self, Path(target), key or self.hub.identity)

    def weights(self, *, key: Path | None = None) -> dict[str, Any]:
        """The result's tensors by name, as numpy arrays of float32."""
        return results.weights(self, key or self.hub.identity)

    def model(self, *, key: Path | None = None) -> Any:
        """The result as a torch module in evaluation mode. A project's package is fetched and its `build` called."""
        from koinon.client import modules

        return modules.build(self, self.weights(key=key))
