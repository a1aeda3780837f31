"""Koinon: hospitals train models together; every record and every single update stays inside its walls.

`koinon.Model` is what a researcher writes, `koinon.check` tries it here, `koinon.connect()` reaches a hub and
`koinon.local()` starts one. Nothing is imported before it is used, so that `import koinon` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from koinon.cli.trial import check
    from koinon.client.hub import Hub, connect
    from koinon.client.local import local
    from koinon.client.progress import Step
    from koinon.client.projects import Project
    from koinon.client.runs import Run
    from koinon.learner import Model

__version__ = "0.1.0"
__all__ = ["Hub", "Model", "Project", "Run", "Step", "__version__", "check", "connect", "local"]

_WHERE = {
    "Hub": "koinon.client.hub",
    "Model": "koinon.learner",
    "Project": "koinon.client.projects",
    "Run": "koinon.client.runs",
    "Step": "koinon.client.progress",
    "check": "koinon.cli.trial",
    "connect": "koinon.client.hub",
    "local": "koinon.client.local",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'koinon' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
