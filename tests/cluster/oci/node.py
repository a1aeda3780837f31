"""Bring images into the running node; of each only the layers that it does not have."""

import tempfile
from pathlib import Path

from tests.cluster import lifecycle
from tests.cluster.oci import builder


def load(name: str) -> bool:
    """Imports an image of the layout. False if the node has it."""
    with builder.alone():
        entry = builder.layout().entry(name)
        if entry is None:
            raise KeyError(f"{name} has not been built: python -m tests.cluster.oci builds it")
        if entry["digest"] in builder.run("ctr", "images", "ls", f"name=={name}"):
            return False
        present = set(builder.run("ctr", "content", "ls", "-q").split())
        try:
            _import(name, present)
        except RuntimeError:  # containerd may collect a layer of the image's predecessor just then
            _import(name, set())
        return True


def _import(name: str, present: set[str]) -> None:
    with tempfile.TemporaryDirectory(dir=lifecycle.folder()) as folder:
        archive = Path(folder, "image.tar")
        builder.layout().thin(name, present, archive)
        lifecycle.load(archive)
