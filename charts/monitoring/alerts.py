"""What an alert is, and the rule files of Prometheus made from a list of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

RUNBOOKS = "https://koinon.dev/docs/runbooks"
"""The charts put another base in its place, for those who read the runbooks elsewhere."""
_HEADER = "# Made by `python -m charts.monitoring`. What each alert means and what to do: docs/runbooks.\n"


@dataclass(frozen=True)
class Alert:
    """`severity`: critical wakes somebody, warning waits for the morning, info is for the record.

    `means` becomes the summary, `tells` the description; both may use {{ $labels.x }} and {{ $value }}.
    """

    name: str
    severity: Literal["critical", "warning", "info"]
    expr: str
    lasts: str
    means: str
    tells: str

    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasts,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.means,
                "description": self.tells,
                "runbook_url": f"{RUNBOOKS}/{self.name}.md",
            },
        }


def text(group: str, alerts: Sequence[Alert]) -> str:
    """A rule file with one group."""
    groups = {"groups": [{"name": group, "rules": [alert.rule() for alert in alerts]}]}
    return _HEADER + yaml.safe_dump(groups, sort_keys=False, width=110, allow_unicode=True)
