"""Openings and grants over the test manifest."""

from typing import Any

from koinon.domain import canonical, parameters, wire
from koinon.domain.grant import Grant
from koinon.domain.manifest import Manifest
from koinon.domain.run import Kind
from tests.unit.domain import manifests

NOW = 1_700_000_100.0
SITE = "lyon"


def grant(of: Manifest, **changes: Any) -> Grant:
    given: dict[str, Any] = {
        "manifest": of.digest(),
        "site": SITE,
        "not_before": int(NOW) - 10,
        "expires": int(NOW) + 1_000,
        "dataset": "heart",
        "vouched": {name: root.public for name, root in manifests.ROOTS.items() if name != SITE},
    }
    return Grant.of(given | changes).signed(manifests.ROOTS[SITE])


def opening(
    manifest: Manifest, *, round: int = 1, attempt: int = 1, run: str = "run000", **changes: Any
) -> wire.Opening:
    given: dict[str, Any] = {
        "manifest": manifest.digest(),
        "run": "run000",
        "round": round,
        "attempt": attempt,
        "kind": Kind.TRAIN,
        "parameters": parameters.complete(manifest.parameters, {}),
        "model": canonical.digest("model"),
        "base": round - 1,
        "invited": manifests.NAMES,
        "audit": canonical.digest("audit"),
    }
    return wire.Opening.of(given | changes)
