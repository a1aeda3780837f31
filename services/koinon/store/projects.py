"""Projects by the hash of their manifest, the hospitals' grants, and researchers' packages."""

import functools
from typing import Any

import sqlalchemy as sa

from koinon.domain.errors import Conflict, NotFound
from koinon.domain.grant import Grant, Revocation
from koinon.domain.manifest import Manifest
from koinon.store import schema
from koinon.store.database import Database
from koinon.store.records import GrantRow, Project


@functools.lru_cache(maxsize=256)
def _manifest(text: str) -> Manifest:
    return Manifest.parse(text)  # immutable, and read far more often than written


def _project(row: sa.Row[Any]) -> Project:
    return Project(row.hash, _manifest(row.manifest), row.owner, row.created, row.rounds, row.releases)


def _grant(row: sa.Row[Any]) -> GrantRow:
    grant = Grant.parse(row.grant) if row.grant else None
    revocation = Revocation.parse(row.revocation) if row.revocation else None
    return GrantRow(row.manifest, row.site, grant, revocation)


class Projects(Database):
    def add_project(self, manifest: Manifest, owner: str) -> Project:
        """Stores the manifest under its hash. The same manifest again returns the first (with its owner)."""
        digest = manifest.digest()
        row: dict[str, Any] = {
            "hash": digest,
            "name": manifest.name,
            "manifest": manifest.encode().decode(),
            "owner": owner,
        }
        row |= {"created": self._clock(), "rounds": 0, "releases": 0}
        with self._write() as connection:
            self._add(connection, schema.projects, row)
            return _project(
                connection.execute(sa.select(schema.projects).where(schema.projects.c.hash == digest)).one()
            )

    def project(self, name: str) -> Project:
        """By hash, or by name if only one project has it. Raises NotFound, or Conflict naming the hashes."""
        table = schema.projects
        with self._read() as connection:
            rows = connection.execute(sa.select(table).where(sa.or_(table.c.hash == name, table.c.name == name))).all()
        exact = [row for row in rows if row.hash == name] or rows
        if not exact:
            raise NotFound(f"There is no project {name}.")
        if len(exact) > 1:
            hashes = ", ".join(sorted(row.hash for row in exact))
            raise Conflict(f"{len(exact)} projects are named {name}.", todo=f"Use a hash: {hashes}.")
        return _project(exact[0])

    def projects(self) -> list[Project]:
        """All projects, newest first."""
        order = (schema.projects.c.created.desc(), schema.projects.c.hash)
        with self._read() as connection:
            return [_project(row) for row in connection.execute(sa.select(schema.projects).order_by(*order))]

    def put_grant(self, grant: Grant) -> GrantRow:
        """Keeps the newest. The caller checked the signature. Raises NotFound without the project, Conflict if
        a grant with a later start is stored or a revocation covers this one."""
        with self._write() as connection:
            stored = self._grant_for_update(connection, grant.manifest, grant.site)
            following = GrantRow(grant.manifest, grant.site, grant, stored.revocation)
            if following.revoked:
                raise Conflict(
                    f"A revocation by {grant.site} covers this grant.",
                    todo="Grant again with a later start: koinon grant",
                )
            if stored.grant and stored.grant.not_before > grant.not_before:
                raise Conflict(f"A newer grant of {grant.site} is stored.", todo="Grant again: koinon grant")
            self._put_grant(connection, following)
            return following

    def put_revocation(self, revocation: Revocation) -> GrantRow:
        """Keeps the newest; an older one changes nothing. The caller checked the signature. Raises NotFound."""
        with self._write() as connection:
            stored = self._grant_for_update(connection, revocation.manifest, revocation.site)
            if stored.revocation and stored.revocation.time >= revocation.time:
                return stored
            following = GrantRow(revocation.manifest, revocation.site, stored.grant, revocation)
            self._put_grant(connection, following)
            return following

    def grants(self, manifest: str) -> dict[str, GrantRow]:
        """Per site that ever granted or revoked."""
        with self._read() as connection:
            rows = connection.execute(sa.select(schema.grants).where(schema.grants.c.manifest == manifest))
            return {row.site: _grant(row) for row in rows}

    def add_package(self, sha256: str, size: int) -> None:
        """The bytes are on disk and verified. Repeatable."""
        with self._write() as connection:
            self._add(connection, schema.packages, {"sha256": sha256, "size": size, "created": self._clock()})

    def has_package(self, sha256: str) -> bool:
        query = sa.select(schema.packages.c.sha256).where(schema.packages.c.sha256 == sha256)
        with self._read() as connection:
            return connection.execute(query).scalar() is not None

    def _grant_for_update(self, connection: sa.Connection, manifest: str, site: str) -> GrantRow:
        """What is stored, if anything; the project's row is locked, so that grants come one after the other."""
        project = schema.projects
        lock = sa.select(project.c.hash).where(project.c.hash == manifest).with_for_update()
        if connection.execute(lock).scalar() is None:
            raise NotFound(f"There is no project {manifest}.")
        table = schema.grants
        query = sa.select(table).where(table.c.manifest == manifest, table.c.site == site)
        row = connection.execute(query).one_or_none()
        return _grant(row) if row else GrantRow(manifest, site, None, None)

    def _put_grant(self, connection: sa.Connection, row: GrantRow) -> None:
        texts = {
            "grant": row.grant.encode().decode() if row.grant else None,
            "revocation": row.revocation.encode().decode() if row.revocation else None,
        }
        self._put(connection, schema.grants, {"manifest": row.manifest, "site": row.site}, texts)
