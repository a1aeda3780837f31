"""The figures of a report, computed from the rounds."""

import hashlib
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinon.client.progress import Step
from koinon.domain import errors

if TYPE_CHECKING:
    from koinon.cli.demo.holdings import Holdings

STEPS = "local steps"
PARTS = (STEPS, "dispatch", "keys", "shares", "masked", "survivors", "unmask", "commit", "between rounds")


def report(steps: list[Step], baseline: dict[str, Any], held: "Holdings", model_sha256: str) -> dict[str, Any]:
    """report.json. A round's metric is that of the model it made; `seconds` add up to its wall time."""
    metric = str(baseline["metric"])
    scored = {step.model: step.metrics[metric] for step in steps if metric in step.metrics}
    rounds: list[dict[str, Any]] = []
    ended: float | None = None
    for step in steps:
        if step.kind == "train" and not step.void:
            rounds.append(
                {
                    "metric": scored.get(step.model + 1),
                    "seconds": parts(step, ended),
                    "bytes": step.bytes,
                    "survivors": list(step.sites),
                }
            )
        ended = step.closed
    return {
        "metric": {
            "name": metric,
            "federated": federated(steps, metric),
            "pooled": baseline["pooled"],
            "alone": dict(baseline["alone"]),
        },
        "rounds": rounds,
        "round_overhead_median_s": statistics.median(overhead(row["seconds"]) for row in rounds),
        "model_sha256": model_sha256,
        "artifacts": [{"name": row["name"], "bytes": row["bytes"]} for row in held.artifacts],
    }


def federated(steps: list[Step], metric: str = "accuracy") -> float:
    """The final model's metric, from the evaluate round. Raises Failed without one."""
    last = next((step for step in reversed(steps) if step.kind == "evaluate" and metric in step.metrics), None)
    if last is None:
        raise errors.Failed(f"No round scored the final model by {metric}.", where="report")
    return last.metrics[metric]


def parts(step: Step, ended: float | None) -> dict[str, float]:
    """Where the time of a round went, from the end of the round before to its own.

    `local steps` are those of the slowest site among the survivors; `dispatch` is what else lies between the round's
    opening and the last keys: delivery of the model, its scoring, the way to the trainer and back.
    """
    slowest = max((_local(step.site_seconds.get(site, {})) for site in step.sites), default=0.0)
    training = step.seconds.get("train", 0.0)
    slowest = min(slowest, training)
    found = {STEPS: slowest, "dispatch": training - slowest}
    found.update({name: step.seconds[name] for name in PARTS if name in step.seconds})
    if ended is not None:
        found["between rounds"] = max(0.0, step.opened - ended)
    return {name: round(value, 6) for name, value in found.items()}


def overhead(seconds: dict[str, float]) -> float:
    """Wall time less the slowest site's local steps."""
    return sum(seconds.values()) - seconds[STEPS]


def _local(took: dict[str, float]) -> float:
    return took.get("steps", took.get("train", 0.0))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
