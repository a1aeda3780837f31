"""A result as a torch module. The one place of the SDK that needs torch, and only when it is called."""

import hashlib
import importlib.util
import io
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinon.client import packages
from koinon.domain import errors
from koinon.learner import Model

if TYPE_CHECKING:
    from koinon.client.runs import Run


def build(run: "Run", weights: dict[str, Any]) -> Any:
    """The module that the run trained, with `weights`, in evaluation mode.

    For a project with a package this executes the package's code, which is checked against the manifest's hash.
    Raises Unavailable without torch.
    """
    try:
        import torch
    except ImportError:
        raise errors.Unavailable(
            "A module needs torch.", where="run.model()", todo="pip install torch; run.weights() gives numpy arrays."
        ) from None
    manifest = run.manifest()
    inputs = manifest.contract.inputs()
    if manifest.model.package is None:
        module = _tabular(torch, inputs, run.parameters)
    else:
        learner = load(_fetch(run, manifest.model.package))
        learner.task = manifest.contract.target.task
        learner.parameters = run.parameters
        module = learner.build(inputs)
    state = module.state_dict()
    state.update({name: torch.from_numpy(array) for name, array in weights.items()})
    module.load_state_dict(state)
    return module.eval()


def _tabular(torch: Any, inputs: int, parameters: dict[str, Any]) -> Any:
    """The architectures of the template, as koinon.domain.layout names their tensors."""
    if parameters.get("architecture", "linear") == "linear":
        return torch.nn.Linear(inputs, 1)
    hidden = int(parameters["hidden"])
    return torch.nn.Sequential(torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))


def _fetch(run: "Run", sha256: str) -> bytes:
    content = b"".join(run.hub.connection.stream(f"/v1/packages/{sha256}"))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise errors.Untrusted("The package that came is not the manifest's.", where=f"package {sha256[:12]}")
    return content


def load(content: bytes) -> Model:
    """An instance of the one Model in a package's model.py. Raises Invalid if there is none, or more."""
    with tempfile.TemporaryDirectory(prefix="koinon-") as folder:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(folder)
        name = f"koinon_package_{hashlib.sha256(content).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(name, Path(folder, packages.ENTRY))
        if spec is None or spec.loader is None:
            raise errors.Invalid("It cannot be imported.", where=packages.ENTRY)
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, folder)
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(folder)
    found = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Model) and kind.__module__ == name
    ]
    if len(found) != 1:
        raise errors.Invalid(f"It defines {len(found)} subclasses of koinon.Model, not one.", where=packages.ENTRY)
    return found[0]()
