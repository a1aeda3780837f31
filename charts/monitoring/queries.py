"""The queries of the generated files, as Prometheus takes them: for the tests that ask a real one."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

_COMPARISON = re.compile(r" (?:[<>]=?|==|!=) ")
_NAME = re.compile(r"\b((?:koinon|ray)_[a-z0-9_]+|up)\b(?=[{\[\s)]|$)")


@dataclass(frozen=True)
class Asked:
    """`where`: panel and number of its query, or the alert."""

    where: str
    expr: str

    def sides(self) -> list["Asked"]:
        """What an alert compares, each side of each comparison for itself, without its bounds."""
        parts = re.split(r" or | and | unless ", self.expr)
        values = [_COMPARISON.split(part)[0].strip() for part in parts]
        return [Asked(self.where, value) for value in values if not value.startswith("absent(")]


def of_dashboard(text: str, variables: Mapping[str, str] | None = None) -> list[Asked]:
    """All panels' queries, with every variable at All, or as given."""
    board = json.loads(text)
    return [
        Asked(f"{panel['title']} {target['refId']}", fill(target["expr"], variables or {}))
        for panel in panels(board)
        for target in panel.get("targets", [])
    ]


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, those in collapsed rows too, without the rows."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels") or []
        else:
            yield panel


def fill(expr: str, variables: Mapping[str, str]) -> str:
    """`expr` with values for its variables; All, which is `.*`, for those that are not given."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found[1], ".*"), expr)


def of_rules(text: str) -> list[Asked]:
    """All alerts' conditions, whole."""
    return [Asked(rule["alert"], rule["expr"]) for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def metrics(expr: str) -> set[str]:
    """Names of the metrics that the query reads."""
    bare = re.sub(r'"[^"]*"|\b(?:by|on|without) \([^)]*\)', "", expr)
    return set(_NAME.findall(bare))
