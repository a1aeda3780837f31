"""Conditions: what is true of a Site or Grant, why, and since when. Pure.

Their types and reasons are documented in the custom resource definitions, where `kubectl explain` shows them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Truth = Literal["True", "False", "Unknown"]

_MESSAGE = 2_000
"""Characters; a message may quote what somebody wrote, and the API server refuses a status with too long a one."""


@dataclass(frozen=True)
class Condition:
    type: str
    status: Truth
    reason: str
    message: str = ""


def true(kind: str, reason: str, message: str = "") -> Condition:
    return Condition(kind, "True", reason, message)


def false(kind: str, reason: str, message: str = "") -> Condition:
    return Condition(kind, "False", reason, message)


def unknown(kind: str, reason: str, message: str = "") -> Condition:
    return Condition(kind, "Unknown", reason, message)


def time_text(seconds: float) -> str:
    """Seconds since 1970 as the API server writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def find(status: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """The condition of a type as it is written in `status`."""
    return next((found for found in status.get("conditions") or [] if found.get("type") == kind), None)


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    return (find(status, kind) or {}).get("status") == "True"


def since(status: Mapping[str, Any], kind: str, truth: Truth) -> float | None:
    """Since when the condition has this truth; None if it has another."""
    found = find(status, kind)
    return time_of(found["lastTransitionTime"]) if found and found.get("status") == truth else None


def conditions(
    before: Mapping[str, Any], wanted: Iterable[Condition], *, generation: int, now: float
) -> list[dict[str, Any]]:
    """`wanted` as the status has it; the time of a transition changes only where the truth does."""
    result = []
    for condition in wanted:
        old = find(before, condition.type)
        kept = old is not None and old.get("status") == condition.status
        result.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message[:_MESSAGE],
                "observedGeneration": generation,
                "lastTransitionTime": old["lastTransitionTime"] if old and kept else time_text(now),
            }
        )
    return result


def summary(wanted: Iterable[Condition], reason: str, message: str) -> Condition:
    """Ready: True for `reason` if all of `wanted` are; otherwise the reason of one that is False, or of one unknown."""
    missing = sorted((c for c in wanted if c.status != "True"), key=lambda c: c.status == "Unknown")
    return false("Ready", missing[0].reason, missing[0].message) if missing else true("Ready", reason, message)
