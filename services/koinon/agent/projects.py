"""The projects a site knows: manifests by hash, its grants and revocations, as files that people and the hub bring.

Parsing and the root's signature are checked once per file; whether a grant is valid now is asked each time.
"""

from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TypeVar

from koinon.agent import policy
from koinon.agent.config import Folder
from koinon.agent.marker import write_durable
from koinon.agent.policy import Refusal
from koinon.domain.errors import Invalid
from koinon.domain.grant import Grant, Revocation
from koinon.domain.keys import Signed
from koinon.domain.manifest import Manifest

S = TypeVar("S", bound=Signed)
MAX_MANIFESTS = 1_000


@dataclass(frozen=True)
class Project:
    """A project that may run here now."""

    hash: str
    manifest: Manifest
    grant: Grant
    roots: dict[str, str]
    vouched: frozenset[str]

    @property
    def minimum(self) -> tuple[int, int]:
        return policy.minimum(self.manifest, self.grant)


class Book:
    """Reads the folders `manifests`, `grants` and `revocations`. Thread-safe."""

    def __init__(self, folder: Folder, site: str) -> None:
        self._folder = folder
        self._site = site
        self._lock = RLock()
        self._manifests: dict[str, Manifest] = {}
        self._grants: dict[str, Grant] = {}
        self._revocations: dict[str, Revocation] = {}
        self._projects: dict[str, Project] = {}
        self._blocked: set[str] = set()
        self.problems: dict[str, str] = {}
        self.reload()

    def reload(self) -> None:
        """Reads grants and revocations anew. A file that cannot be read is told in `problems`.

        Such a grant is none; such a revocation blocks its project, since the hospital meant to end it.
        """
        with self._lock:
            self.problems = {}
            self._grants = self._read(self._folder.grants, Grant)
            self._revocations = self._read(self._folder.revocations, Revocation)
            self._blocked = {path.stem for path in self._folder.revocations.glob("*.json")} - set(self._revocations)
            self._projects = {}

    def _read(self, folder: Path, kind: type[S]) -> dict[str, S]:
        found: dict[str, S] = {}
        for path in sorted(folder.glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                found[path.stem] = kind.parse(path.read_bytes(), where=path.name)
            except (Invalid, OSError) as error:
                self.problems[str(path)] = str(error)
        return found

    @property
    def grants(self) -> dict[str, Grant]:
        with self._lock:
            return dict(self._grants)

    @property
    def revocations(self) -> dict[str, Revocation]:
        with self._lock:
            return dict(self._revocations)

    def has_manifest(self, name: str) -> bool:
        return name in self._manifests or (self._folder.manifests / f"{name}.json").exists()

    def keep_manifest(self, name: str, text: bytes) -> Manifest:
        """Stores a manifest that has the hash `name` and this site as a member. Raises Refusal for any other one, and
        for more than MAX_MANIFESTS: the hub must not fill the disk."""
        manifest = policy.read_manifest(text, name)
        if manifest.root_of(self._site) is None:
            raise Refusal("not_a_member", f"{self._site} is not a member of {manifest.name}.")
        with self._lock:
            if name not in self._manifests:
                path = self._folder.manifests / f"{name}.json"
                if not path.exists():
                    if self.full:
                        raise Refusal("too_many_projects", f"{MAX_MANIFESTS} manifests are here, the limit.",
                                      todo=f"Remove old ones from {self._folder.manifests}.")  # fmt: skip
                    write_durable(path, text)
                self._manifests[name] = manifest
        return manifest

    @property
    def full(self) -> bool:
        """Are as many manifests here as may be?"""
        return sum(1 for _ in self._folder.manifests.glob("*.json")) >= MAX_MANIFESTS

    def manifest(self, name: str) -> Manifest:
        """Raises Refusal if it is not here."""
        with self._lock:
            if name not in self._manifests:
                path = self._folder.manifests / f"{name}.json"
                if not path.exists():
                    raise Refusal("no_manifest", f"The manifest {name[:12]}… is not at this site.")
                self._manifests[name] = policy.read_manifest(path.read_bytes(), name)
            return self._manifests[name]

    def project(self, name: str, now: float) -> Project:
        """The project `name` if it may run here at `now`. Raises Refusal."""
        with self._lock:
            if name in self._blocked:
                raise Refusal("bad_revocation", "There is a revocation of this project that cannot be read.",
                              todo="Write it again, or remove it.")  # fmt: skip
            known = self._projects.get(name)
            if known is None:
                manifest = self.manifest(name)
                grant = policy.check_grant(
                    manifest, name, self._site, self._grants.get(name), self._revocations.get(name), now=now
                )
                roots = {member.site: member.root for member in manifest.members}
                known = Project(name, manifest, grant, roots, policy.vouched(manifest, grant))
                self._projects[name] = known
            policy.check_time(known.grant, now)
            return known
