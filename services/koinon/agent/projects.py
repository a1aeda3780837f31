"""The projects a site knows: manifests by hash, its grants and revocations, as files that people and the hub bring.

Parsing and the root's signature are checked once per file; whether a grant is valid now is asked each time.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TypeVar

from koinon.agent import policy
from koinon.agent.config import Folder
from koinon.agent.marker import write_durable
from koinon.agent.policy import Refusal
from koinon.domain.errors import Invalid, Untrusted
from koinon.domain.grant import Grant, Revocation
from koinon.domain.keys import Signed
from koinon.domain.manifest import Manifest

S = TypeVar("S", bound=Signed)
MAX_MANIFESTS = 1_000
_READS = 50  # of consents, if they are swapped again and again


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
        """Reads grants and revocations anew, all of one moment. A file that cannot be read is told in `problems`.

        Such a grant is none; such a revocation blocks its project, since the hospital meant to end it.
        """
        with self._lock:
            files = self._folder.consents()
            for _ in range(_READS):
                self.problems = {}
                grants, revocations = self._read(files.grants, Grant), self._read(files.revocations, Revocation)
                before, files = files, self._folder.consents()
                if files.version == before.version:
                    break  # otherwise a mount was swapped meanwhile, and the files read may have gone
            self._grants, self._revocations = grants, self._with_kept(revocations)
            self._blocked = set(files.revocations) - set(revocations)
            self._projects = {}

    def _with_kept(self, revocations: dict[str, Revocation]) -> dict[str, Revocation]:
        """With those that were mounted once: whoever changes a mount must not undo one. A project's latest counts."""
        if self._folder.mounted is None:
            return revocations
        kept = self._read(self._folder.kept_revocations(), Revocation)
        for name, revocation in revocations.items():
            if name in kept and kept[name].time >= revocation.time:
                continue
            kept[name] = revocation
            with contextlib.suppress(Untrusted, OSError):
                revocation.check(self._folder.root_public.read_text().strip())
                write_durable(self._folder.revocations / f"{name}.json", revocation.encode())
        return kept

    def _read(self, files: dict[str, Path], kind: type[S]) -> dict[str, S]:
        found: dict[str, S] = {}
        for name, path in files.items():
            try:
                found[name] = kind.parse(path.read_bytes(), where=path.name)
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

    def manifests(self) -> dict[str, Manifest]:
        """All that are here and can be read, by hash."""
        found: dict[str, Manifest] = {}
        for path in sorted(self._folder.manifests.glob("*.json")):
            with contextlib.suppress(Refusal, OSError):
                found[path.stem] = self.manifest(path.stem)
        return found

    def granted(self, now: float) -> dict[str, Project]:
        """All projects that may run here at `now`, by hash."""
        found: dict[str, Project] = {}
        for name in self.grants:
            with contextlib.suppress(Refusal):
                found[name] = self.project(name, now)
        return found

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
