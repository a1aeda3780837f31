"""One OCI layout that holds all images; a layer that several share, or a new build did not change, is kept once."""

import hashlib
import io
import json
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

KEY = "dev.koinon.key"  # of what an image was built
NAME = "io.containerd.image.name"
WHITEOUT = ".wh."  # a layer's mark that a file of those below is gone
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

Json = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """An image as its manifest describes it."""

    manifest: Json
    config: Json
    blobs: Path

    @property
    def layers(self) -> list[Json]:
        found: list[Json] = self.manifest["layers"]
        return found

    @property
    def size(self) -> int:
        """Bytes of all layers, unpacked."""
        return sum(layer["size"] for layer in self.layers)

    @property
    def settings(self) -> Json:
        """User, Entrypoint, Env, Labels …"""
        found: Json = self.config["config"]
        return found

    def packed(self) -> int:
        """Bytes of all layers as a registry keeps them, at gzip's fastest level: an upper bound."""
        return sum(_packed(self.blobs / _hex(layer["digest"])) for layer in self.layers)

    def files(self) -> dict[str, tarfile.TarInfo]:
        """What a container sees, by path without the leading slash."""
        seen: dict[str, tarfile.TarInfo] = {}
        for layer in self.layers:
            for entry in _entries(self.blobs / _hex(layer["digest"])):
                folder, _, name = entry.name.rpartition("/")
                if name.startswith(WHITEOUT):
                    hidden = f"{folder}/{name.removeprefix(WHITEOUT)}"
                    seen = {path: e for path, e in seen.items() if path != hidden and not path.startswith(f"{hidden}/")}
                else:
                    seen[entry.name] = entry
        return seen

    def names_in(self, *numbers: int) -> set[str]:
        """Paths in some of the layers; 0 is the lowest, -1 the last."""
        layers = [self.layers[number] for number in numbers]
        return {entry.name for layer in layers for entry in _entries(self.blobs / _hex(layer["digest"]))}

    def read(self, path: str) -> bytes:
        """A file of the highest layer that has it. Raises KeyError if none has."""
        for layer in reversed(self.layers):
            with tarfile.open(self.blobs / _hex(layer["digest"])) as tar:
                entry = next((e for e in _entries(self.blobs / _hex(layer["digest"])) if e.name == path), None)
                if entry and (content := tar.extractfile(entry)):
                    return content.read()
        raise KeyError(path)


@cache
def _entries(layer: Path) -> list[tarfile.TarInfo]:
    """Names lose what writers put before them: ./ or /."""
    with tarfile.open(layer) as tar:
        entries = tar.getmembers()
    for entry in entries:
        entry.name = entry.name.removeprefix("./").strip("/")
    return entries


@cache
def _packed(layer: Path) -> int:
    deflate, size = zlib.compressobj(1), 0
    with layer.open("rb") as tar:
        while block := tar.read(1 << 20):
            size += len(deflate.compress(block))
    return size + len(deflate.flush())


class Layout:
    """The folder of an OCI image layout (opencontainers/image-spec, image-layout.md)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = folder / "blobs/sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def entries(self) -> list[Json]:
        index = self.folder / "index.json"
        found: list[Json] = json.loads(index.read_text())["manifests"] if index.exists() else []
        return found

    def entry(self, name: str) -> Json | None:
        return next((entry for entry in self.entries() if entry["annotations"][NAME] == name), None)

    def key(self, name: str) -> str | None:
        """What the image was built of, as `take` was told; None if it is not here."""
        entry = self.entry(name)
        return entry["annotations"][KEY] if entry else None

    def image(self, name: str) -> Image:
        """Raises KeyError if there is no such image."""
        entry = self.entry(name)
        if entry is None:
            raise KeyError(f"{name} is not in {self.folder}: python -m tests.cluster.oci builds it")
        manifest = json.loads(self.blob(entry).read_bytes())
        return Image(manifest, json.loads(self.blob(manifest["config"]).read_bytes()), self.blobs)

    def blob(self, descriptor: Json) -> Path:
        return self.blobs / _hex(descriptor["digest"])

    def take(self, name: str, key: str, export: Callable[[Path], object]) -> None:
        """Replaces an image by what `export` writes into a folder: manifest.json, and blobs named by their hash.

        That is what containers/image calls `dir:`, its only form that keeps layers as they are, uncompressed.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            folder = Path(temporary, "image")
            export(folder)
            raw = (folder / "manifest.json").read_bytes()
            manifest = json.loads(raw)
            for descriptor in (manifest["config"], *manifest["layers"]):
                (folder / _hex(descriptor["digest"])).replace(self.blob(descriptor))
        digest = hashlib.sha256(raw).hexdigest()
        (self.blobs / digest).write_bytes(raw)
        entry = {
            "mediaType": MANIFEST,
            "digest": f"sha256:{digest}",
            "size": len(raw),
            "annotations": {NAME: name, KEY: key},
        }
        kept = [entry for entry in self.entries() if entry["annotations"][NAME] != name]
        self._write([*kept, entry])
        self._forget_unused()

    def thin(self, name: str, present: set[str], archive: Path) -> None:
        """Writes an archive of one image, without the layers whose digests are `present` where it goes."""
        entry, image = self.entry(name), self.image(name)
        index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        with tarfile.open(archive, "w") as tar:
            tar.add(self.folder / "oci-layout", "oci-layout")
            member = tarfile.TarInfo("index.json")
            member.size = len(index)
            tar.addfile(member, io.BytesIO(index))
            for descriptor in (entry, image.manifest["config"], *image.layers):
                if descriptor["digest"] not in present:
                    tar.add(self.blob(descriptor), f"blobs/sha256/{_hex(descriptor['digest'])}")

    def _write(self, entries: list[Json]) -> None:
        temporary = self.folder / "index.json.new"
        temporary.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}, indent=1))
        temporary.replace(self.folder / "index.json")

    def _forget_unused(self) -> None:
        used = {self.blob(entry) for entry in self.entries()}
        for entry in self.entries():
            manifest = json.loads(self.blob(entry).read_bytes())
            used |= {self.blob(descriptor) for descriptor in (manifest["config"], *manifest["layers"])}
        for path in set(self.blobs.iterdir()) - used:
            path.unlink()


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")
