"""The hash-chained events of a run. They outlive the run's deletion: an audit log that forgets is none."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from koinon.domain import canonical
from koinon.domain.errors import Invalid, NotFound, Untrusted
from koinon.store import schema
from koinon.store.database import Database
from koinon.store.records import Event, event_hash


def _event(row: sa.Row[Any]) -> Event:
    return Event(row.run, row.seq, row.time, row.kind, canonical.decode(row.data), row.previous, row.hash)


def _chain(connection: sa.Connection, run: str, *, lock: bool = False) -> sa.Row[Any]:
    query = sa.select(schema.chains).where(schema.chains.c.run == run)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound(f"There is no run {run}.")
    return row


def _follows(row: sa.Row[Any], seq: int, previous: str) -> bool:
    try:
        event = _event(row)
    except Invalid:  # the data is no JSON any more
        return False
    expected = event_hash(event.run, seq + 1, event.time, event.kind, event.data, previous)
    return event.seq == seq + 1 and event.previous == previous and event.hash == expected


class Events(Database):
    def append_event(self, run: str, kind: str, data: Mapping[str, Any]) -> Event:
        """Adds to the run's chain. Not idempotent: after Unavailable it may have been written. Raises NotFound."""
        with self._write() as connection:
            return self._append(connection, run, kind, data)

    def events(self, run: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """Events with seq > `after`, in order; also of a deleted run. Empty for an unknown run."""
        table = schema.events
        query = sa.select(table).where(table.c.run == run, table.c.seq > after).order_by(table.c.seq).limit(limit)
        with self._read() as connection:
            return [_event(row) for row in connection.execute(query)]

    def head(self, run: str) -> str:
        """Hash of the newest event. Raises NotFound."""
        with self._read() as connection:
            return str(_chain(connection, run).head)

    def verify_chain(self, run: str) -> int:
        """The number of events, all of whose hashes and links hold from the manifest to the head that is
        kept apart. Raises Untrusted naming the first broken one, NotFound for an unknown run."""
        table = schema.events
        with self._read() as connection:
            chain = _chain(connection, run)
            previous, seq = chain.project, 0
            for row in connection.execute(sa.select(table).where(table.c.run == run).order_by(table.c.seq)):
                if not _follows(row, seq, previous):
                    raise Untrusted(f"Event {seq + 1} of run {run} is not what was written.", todo="Restore a backup.")
                previous, seq = row.hash, row.seq
            if (seq, previous) != (chain.seq, chain.head):
                raise Untrusted(f"Events after {seq} of run {run} are missing.", todo="Restore a backup.")
            return seq

    def chains(self) -> list[str]:
        """Every run that has a chain, deleted ones too."""
        with self._read() as connection:
            return list(connection.execute(sa.select(schema.chains.c.run).order_by(schema.chains.c.run)).scalars())

    def _start_chain(self, connection: sa.Connection, run: str, project: str) -> bool:
        """False if the run has a chain, be it of a deleted run: its id is spent."""
        return self._add(connection, schema.chains, {"run": run, "project": project, "seq": 0, "head": project})

    def _head_for_update(self, connection: sa.Connection, run: str) -> str:
        """The head; nothing is appended to the chain by others until the transaction ends."""
        return str(_chain(connection, run, lock=True).head)

    def _append(self, connection: sa.Connection, run: str, kind: str, data: Mapping[str, Any]) -> Event:
        chain = _chain(connection, run, lock=True)
        body: dict[str, Any] = canonical.normalise(data)
        time = int(self._clock() * 1_000)
        digest = event_hash(run, chain.seq + 1, time, kind, body, chain.head)
        event = Event(run, chain.seq + 1, time, kind, body, chain.head, digest)
        row = {"run": run, "seq": event.seq, "time": time, "kind": kind, "data": canonical.encode(body).decode()}
        connection.execute(sa.insert(schema.events).values(row | {"previous": chain.head, "hash": digest}))
        table = schema.chains
        connection.execute(sa.update(table).where(table.c.run == run).values(seq=event.seq, head=digest))
        return event
