"""A small valid manifest to vary in tests."""

from typing import Any

from koinon.domain import contract, manifest, metrics
from koinon.domain.keys import SigningKey

NAMES = ("lille", "lyon", "nantes", "nice")
ROOTS = {name: SigningKey(bytes([index + 1]) * 32) for index, name in enumerate(NAMES)}
AGE = "age1" + "q" * 58

CONTRACT = """
columns:
  - {name: age, type: real, minimum: 18, maximum: 110, prepare: standardise}
  - {name: cp, type: category, levels: [1, 2, 3, 4], prepare: one_hot_drop_first}
  - {name: num, type: integer, role: target}
target: {task: classification, positive_above: 0}
"""


def values(**changes: Any) -> dict[str, Any]:
    """The manifest as JSON gives it, with `changes` to its top fields."""
    cohorts: contract.Cohorts = {"all": ()}
    given: dict[str, Any] = {
        "name": "heart",
        "purpose": "risk of heart disease",
        "created": 1_700_000_000,
        "hub": {"signing": "ab" * 32, "recipient": AGE},
        "members": [{"site": name, "root": ROOTS[name].public} for name in NAMES],
        "model": {"template": "tabular"},
        "contract": contract.from_yaml(CONTRACT).model_dump(),
        "metrics": list(metrics.default("classification")),
        "parameters": {k: v.model_dump() for k, v in manifest.default_parameters(cohorts).items()},
        "recipients": [{"name": "ada", "recipient": AGE}],
    }
    return given | changes


def build(**changes: Any) -> manifest.Manifest:
    return manifest.Manifest.of(values(**changes))
