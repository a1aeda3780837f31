"""What sites sent in an open attempt, and what the hub made of their uploads. Gone when the attempt is over.

Releases are not among them: a share in the clear lives in memory only.
"""

from collections.abc import Mapping

import sqlalchemy as sa

from koinon.domain import canonical
from koinon.domain.errors import Conflict, Invalid, NotFound
from koinon.domain.run import Phase
from koinon.domain.wire import Trouble
from koinon.store import history, schema
from koinon.store.database import Database
from koinon.store.records import Fold, Sealing

_PHASE = (  # built once: it runs with every message and every part
    sa.select(schema.attempts.c.phase)
    .where(schema.attempts.c.run == sa.bindparam("of_run"))
    .where(schema.attempts.c.round == sa.bindparam("of_round"))
    .where(schema.attempts.c.number == sa.bindparam("of_attempt"))
    .with_for_update(read=True)
)


def _equal(table: sa.Table, key: Mapping[str, object]) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in key.items()]


class Messages(Database):
    def put_message(self, run: str, round: int, attempt: int, phase: Phase, site: str, body: bytes) -> bool:
        """Keeps a site's one message of a phase: True if new, False if the same bytes are stored already.

        Raises Conflict for other bytes, or if it is new and the attempt is not in `phase` (any more); NotFound
        without the attempt; Invalid for phase UNMASK.
        """
        if phase is Phase.UNMASK:
            raise Invalid("A release is never stored.")
        table = schema.messages
        key = {"run": run, "round": round, "attempt": attempt, "phase": phase.value, "site": site}
        with self._write() as connection:
            current = self._phase(connection, run, round, attempt)
            if current is phase and self._add(connection, table, key | {"body": body}):
                return True
            stored = connection.execute(sa.select(table.c.body).where(*_equal(table, key))).scalar()
        if stored is None:
            raise Conflict(f"Attempt {attempt} of round {round} is in phase {current}, not {phase}.")
        if bytes(stored) != body:
            raise Conflict(f"{site} sent another message for phase {phase} of attempt {attempt} before.")
        return False

    def messages(self, run: str, round: int, attempt: int, phase: Phase) -> dict[str, bytes]:
        """Per site."""
        table = schema.messages
        key = {"run": run, "round": round, "attempt": attempt, "phase": phase.value}
        query = sa.select(table.c.site, table.c.body).where(*_equal(table, key)).order_by(table.c.site)
        with self._read() as connection:
            return {row.site: bytes(row.body) for row in connection.execute(query)}

    def put_trouble(self, run: str, round: int, attempt: int, site: str, trouble: Trouble) -> bool:
        """Keeps a site's first trouble of an attempt: True if new. Raises Conflict if the attempt is over."""
        row = {"run": run, "round": round, "attempt": attempt, "site": site, "trouble": trouble.encode().decode()}
        with self._write() as connection:
            self._check_open(connection, run, round, attempt)
            return self._add(connection, schema.troubles, row)

    def troubles(self, run: str, round: int, attempt: int) -> dict[str, Trouble]:
        """Per site. They stay after the attempt's end."""
        table = schema.troubles
        key = {"run": run, "round": round, "attempt": attempt}
        query = sa.select(table.c.site, table.c.trouble).where(*_equal(table, key)).order_by(table.c.site)
        with self._read() as connection:
            return {row.site: Trouble.parse(row.trouble) for row in connection.execute(query)}

    def put_part(self, run: str, round: int, attempt: int, site: str, index: int, size: int) -> None:
        """Part `index` of the site's upload is durable in the spool with `size` bytes. A repeat replaces."""
        key = {"run": run, "round": round, "attempt": attempt, "site": site, "part": index}
        with self._write() as connection:
            self._check_open(connection, run, round, attempt)
            self._put(connection, schema.parts, key, {"size": size})

    def parts(self, run: str, round: int, attempt: int, site: str) -> dict[int, int]:
        """Size per index."""
        table = schema.parts
        key = {"run": run, "round": round, "attempt": attempt, "site": site}
        query = sa.select(table.c.part, table.c.size).where(*_equal(table, key)).order_by(table.c.part)
        with self._read() as connection:
            return {row.part: row.size for row in connection.execute(query)}

    def set_fold(self, run: str, round: int, attempt: int, name: str, digest: str, roots: Mapping[str, str]) -> None:
        """The accumulator file `name` (hash `digest`) is durable and holds the uploads in `roots` (by site).
        Replaces the last one; spools may be deleted afterwards. Raises Conflict if it lacks a site of the last."""
        key = {"run": run, "round": round, "attempt": attempt}
        with self._write() as connection:
            self._check_open(connection, run, round, attempt)
            last = self._fold(connection, run, round, attempt)
            if last and any(roots.get(site) != root for site, root in last.roots.items()):
                raise Conflict(f"The accumulator {name} lacks an upload that is folded already.")
            values = {"name": name, "digest": digest, "roots": canonical.encode(dict(roots)).decode()}
            self._put(connection, schema.folds, key, values)

    def fold(self, run: str, round: int, attempt: int) -> Fold | None:
        with self._read() as connection:
            return self._fold(connection, run, round, attempt)

    def put_sealing(self, run: str, round: int, kind: str, header: bytes, wrapped: bytes) -> Sealing:
        """The first one stored for (run, round, kind) wins and is returned: seal with that one."""
        key = {"run": run, "round": round, "kind": kind}
        with self._write() as connection:
            self._add(connection, schema.sealings, key | {"header": header, "wrapped": wrapped})
            stored = self._sealing(connection, run, round, kind)
        if stored is None:
            raise NotFound(f"There is no round {round} of run {run}.")
        return stored

    def sealing(self, run: str, round: int, kind: str) -> Sealing | None:
        with self._read() as connection:
            return self._sealing(connection, run, round, kind)

    def _phase(self, connection: sa.Connection, run: str, round: int, attempt: int) -> Phase:
        """The attempt's phase, which cannot change before the transaction ends."""
        phase = connection.execute(_PHASE, {"of_run": run, "of_round": round, "of_attempt": attempt}).scalar()
        if phase is None:
            raise NotFound(f"There is no attempt {attempt} of round {round} of run {run}.")
        return Phase(phase)

    def _check_open(self, connection: sa.Connection, run: str, round: int, attempt: int) -> None:
        phase = self._phase(connection, run, round, attempt)
        if history.is_over(phase):
            raise Conflict(f"Attempt {attempt} of round {round} is over ({phase}).")

    def _fold(self, connection: sa.Connection, run: str, round: int, attempt: int) -> Fold | None:
        key = {"run": run, "round": round, "attempt": attempt}
        row = connection.execute(sa.select(schema.folds).where(*_equal(schema.folds, key))).one_or_none()
        return Fold(row.name, row.digest, canonical.decode(row.roots)) if row else None

    def _sealing(self, connection: sa.Connection, run: str, round: int, kind: str) -> Sealing | None:
        key = {"run": run, "round": round, "kind": kind}
        row = connection.execute(sa.select(schema.sealings).where(*_equal(schema.sealings, key))).one_or_none()
        return Sealing(bytes(row.header), bytes(row.wrapped)) if row else None
