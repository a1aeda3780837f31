"""Results: fetched sealed, opened here with the researcher's key, checked before a byte is handed over."""

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinon.artifacts import sealing
from koinon.client import keyfile
from koinon.domain import errors, layout, tensors
from koinon.domain.manifest import Manifest

if TYPE_CHECKING:
    from koinon.client.progress import Step
    from koinon.client.runs import Run


def table(steps: "list[Step]") -> Any:
    """One row per scored model: a pandas DataFrame where pandas is installed, else a list of dictionaries."""
    rows = [
        {
            "model": step.model,
            "round": step.round,
            **step.metrics,
            **{f"{name} pooled": value for name, value in step.pooled.items()},
            "seconds": step.total_seconds,
            "bytes": step.bytes,
            "sites": len(step.sites),
            "missing": ", ".join(step.missing),
        }
        for step in steps
        if step.metrics
    ]
    try:
        import pandas as pd
    except ImportError:
        return rows
    return pd.DataFrame(rows)


def download(run: "Run", target: Path, key: Path) -> Path:
    """The opened result in `target`, which appears only when everything verified.

    Raises Conflict while there is no result, Untrusted if it is another's, damaged, or not what the hub says.
    """
    row = next((a for a in run.artifacts() if a["kind"] == "result"), None)
    if row is None:
        raise errors.Conflict(
            f"The run has no result yet (it is {run.refresh().state}).", where=f"run {run.id}", todo="koinon run watch"
        )
    identity = keyfile.load(key)
    manifest = run.manifest()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".koinon-") as folder:
        sealed = Path(folder, "sealed")
        fetch(run, str(row["name"]), sealed)
        expected = sealing.Expected(
            manifest=manifest.digest(),
            run=run.id,
            round=int(row["round"]),
            kind="result",
            parent=sealing.UNKNOWN,  # the model before it, which a recipient of results never saw
            plaintext=row.get("plaintext") or sealing.UNKNOWN,
            length=tensors.file_bytes(tensors.named(manifest.layout(run.parameters), "model")),
        )
        sealing.open_file(sealed, identity, target, signer=manifest.hub.signing, expected=expected)
    return target


def fetch(run: "Run", name: str, target: Path) -> None:
    """The sealed bytes of an artifact. Raises Untrusted unless they hash to its name."""
    seen = hashlib.sha256()
    with target.open("wb") as file:
        for chunk in run.hub.connection.stream(f"{run.path}/artifacts/{name}"):
            seen.update(chunk)
            file.write(chunk)
    if seen.hexdigest() != name:
        raise errors.Untrusted("The bytes that came are not the artifact's.", where=f"artifact {name[:12]}")


def weights(run: "Run", key: Path) -> dict[str, Any]:
    """Tensor name in the model's state → float32 array."""
    manifest = run.manifest()
    with tempfile.TemporaryDirectory(prefix="koinon-") as folder:
        return read(download(run, Path(folder, "result"), key), manifest, run.parameters)


def read(path: Path, manifest: Manifest, chosen: dict[str, Any]) -> dict[str, Any]:
    """The tensors of an opened result, its header checked against the manifest's layout."""
    import numpy as np

    shapes = manifest.layout(chosen)
    with path.open("rb") as file:
        first = file.read(8)
        tensors.check_header(file.read(tensors.header_length(first)), tensors.named(shapes, "model"))
        flat = np.frombuffer(file.read(), dtype="<f4")
    if flat.size != layout.size(shapes):
        raise errors.Invalid(f"The result holds {flat.size} numbers, not {layout.size(shapes)}.", where=path.name)
    found, offset = {}, 0
    for tensor in shapes:
        found[tensor.name] = flat[offset : offset + tensor.size()].reshape(tensor.shape).copy()
        offset += tensor.size()
    return found
