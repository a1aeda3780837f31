"""Who may talk to the hub: researchers by token, sites by a root key that a one-time token let in."""

import dataclasses
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from koinon.domain.errors import Conflict, NotFound, Unauthenticated, Untrusted
from koinon.domain.keys import Certificate
from koinon.domain.wire import SiteStatus
from koinon.store import schema
from koinon.store.database import Database
from koinon.store.records import SiteRow, User

_TOUCH_SECONDS = 10.0


def hash_token(token: str) -> str:
    """What is stored of a bearer or enrolment token (32 random bytes, so no salt is needed): SHA-256 in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def _site(row: sa.Row[Any]) -> SiteRow:
    return SiteRow(
        name=row.name,
        root=row.root,
        certificate=Certificate.parse(row.certificate),
        enrolled=row.enrolled,
        status=SiteStatus.parse(row.status) if row.status else None,
        last_seen=row.last_seen,
        clock_offset=row.clock_offset,
    )


def _check_certificate(certificate: Certificate, root: str, site: str) -> None:
    certificate.check(root)
    if certificate.site != site:
        raise Untrusted(f"The certificate is {certificate.site}'s, not {site}'s.")


class Accounts(Database):
    """`add_user`, `remove_user` and `add_enrolment` work without the fence: an operator's command beside the hub."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(url, clock=clock)
        # Presence changes with every long-poll and is worth no write each: what was seen, what was written.
        self._seen: dict[str, tuple[SiteStatus | None, float, float]] = {}
        self._written: dict[str, float] = {}

    def _as_seen(self, row: SiteRow) -> SiteRow:
        seen = self._seen.get(row.name)
        if seen is None:
            return row
        status, last_seen, clock_offset = seen
        return dataclasses.replace(row, status=status, last_seen=last_seen, clock_offset=clock_offset)

    def add_user(self, name: str, token_hash: str) -> User:
        """Raises Conflict if the name is taken."""
        now = self._clock()
        with self._write(fenced=False) as connection:
            if not self._add(connection, schema.users, {"name": name, "token_hash": token_hash, "created": now}):
                raise Conflict(f"There is a user {name} already.", todo="Remove it first, or choose another name.")
        return User(name, now)

    def user_by_token(self, token_hash: str) -> User | None:
        """The user whose token it is; None for any other."""
        query = sa.select(schema.users).where(schema.users.c.token_hash == token_hash)
        with self._read() as connection:
            row = connection.execute(query).one_or_none()
        # The database's index compares early bytes first; this last comparison takes the same time for all.
        if row is None or not hmac.compare_digest(row.token_hash, token_hash):
            return None
        return User(row.name, row.created)

    def users(self) -> list[User]:
        """All users by name."""
        with self._read() as connection:
            rows = connection.execute(sa.select(schema.users).order_by(schema.users.c.name))
            return [User(row.name, row.created) for row in rows]

    def remove_user(self, name: str) -> None:
        """The token stops working at once; projects and runs of the user stay. Raises NotFound."""
        with self._write(fenced=False) as connection:
            if not connection.execute(sa.delete(schema.users).where(schema.users.c.name == name)).rowcount:
                raise NotFound(f"There is no user {name}.")

    def add_enrolment(self, token_hash: str, site: str, expires: float) -> None:
        """A one-time token for `site`."""
        row = {"token_hash": token_hash, "site": site, "expires": expires}
        with self._write(fenced=False) as connection:
            if not self._add(connection, schema.enrolments, row):
                raise Conflict("This enrolment token exists already.", todo="Draw another one.")

    def redeem_enrolment(self, token_hash: str, site: str, root: str, certificate: Certificate) -> SiteRow:
        """Enrols the site and uses the token up, in one transaction. The same call again returns the same row.

        Raises Unauthenticated for a token that is unknown, expired, used or another site's; Conflict if the
        site or the root key is enrolled otherwise; Untrusted unless `root` signed `certificate` for `site`.
        """
        table, now = schema.enrolments, self._clock()
        with self._write() as connection:
            token = connection.execute(
                sa.select(table).where(table.c.token_hash == token_hash).with_for_update()
            ).one_or_none()
            used_otherwise = token is not None and token.root is not None and token.root != root
            if token is None or token.site != site or used_otherwise:
                raise Unauthenticated(
                    "This enrolment token is not valid for this site.", todo="Ask the hub's operator for a new one."
                )
            if token.root is None and now >= token.expires:
                raise Unauthenticated("This enrolment token has expired.", todo="Ask the hub's operator for a new one.")
            _check_certificate(certificate, root, site)
            row: dict[str, Any] = {"name": site, "root": root, "certificate": certificate.encode().decode()}
            row |= {"epoch": certificate.epoch, "enrolled": now}
            if not self._add(connection, schema.sites, row):
                stored = connection.execute(sa.select(schema.sites).where(schema.sites.c.name == site)).one_or_none()
                if stored is None or stored.root != root:
                    raise Conflict(
                        f"The site {site} or this root key is enrolled already.",
                        todo="Each site has its own name and root.",
                    )
            connection.execute(sa.update(table).where(table.c.token_hash == token_hash).values(root=root))
            return _site(connection.execute(sa.select(schema.sites).where(schema.sites.c.name == site)).one())

    def sites(self) -> list[SiteRow]:
        """All sites by name."""
        with self._read() as connection:
            rows = connection.execute(sa.select(schema.sites).order_by(schema.sites.c.name)).all()
        return [self._as_seen(_site(row)) for row in rows]

    def site(self, name: str) -> SiteRow:
        """Raises NotFound."""
        with self._read() as connection:
            row = connection.execute(sa.select(schema.sites).where(schema.sites.c.name == name)).one_or_none()
        if row is None:
            raise NotFound(f"There is no site {name}.", todo="It enrols first: koinon site init")
        return self._as_seen(_site(row))

    def touch_site(self, name: str, status: SiteStatus | None, clock_offset: float) -> None:
        """The site was here now. Seen at once by this Store; written to the database at most every 10 s."""
        now = self._clock()
        stored = self._written.get(name)
        self._seen[name] = (status, now, clock_offset)
        if stored is not None and 0 <= now - stored < _TOUCH_SECONDS:
            return
        text = status.encode().decode() if status else None
        values = {"status": text, "last_seen": now, "clock_offset": clock_offset}
        with self._write() as connection:
            if not connection.execute(
                sa.update(schema.sites).where(schema.sites.c.name == name).values(values)
            ).rowcount:
                self._seen.pop(name, None)
                raise NotFound(f"There is no site {name}.", todo="It enrols first: koinon site init")
        self._written[name] = now

    def renew_certificate(self, certificate: Certificate) -> SiteRow:
        """Raises Untrusted unless the site's root signed it, Conflict unless its epoch is higher or it is the same."""
        table = schema.sites
        with self._write() as connection:
            query = sa.select(table).where(table.c.name == certificate.site)
            row = connection.execute(query.with_for_update()).one_or_none()
            if row is None:
                raise NotFound(f"There is no site {certificate.site}.", todo="It enrols first: koinon site init")
            _check_certificate(certificate, row.root, row.name)
            text = certificate.encode().decode()
            if text != row.certificate:
                if certificate.epoch <= row.epoch:
                    raise Conflict(
                        f"The certificate of {row.name} has epoch {certificate.epoch}; {row.epoch} is stored.",
                        todo="A renewed certificate has a higher epoch.",
                    )
                change = {"certificate": text, "epoch": certificate.epoch}
                connection.execute(sa.update(table).where(table.c.name == row.name).values(change))
            return self._as_seen(_site(connection.execute(query).one()))
