"""Rounds and attempts as they are stored, and how they end: what `runs` and `rounds` both build on."""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from koinon.domain import canonical, run
from koinon.domain.errors import NotFound
from koinon.domain.run import Kind, Phase, RoundState
from koinon.domain.wire import Opening, Roster, Survivors
from koinon.store import schema
from koinon.store.events import Events
from koinon.store.records import Attempt, Round

_OVER = (Phase.DONE, Phase.FAILED)
_UPLOADS = (schema.messages, schema.parts, schema.folds, schema.sealings)


def is_over(phase: Phase) -> bool:
    return phase in _OVER


def times(seconds: Mapping[Any, float]) -> str:
    """JSON with the floats as they are: these are never hashed."""
    return json.dumps({str(key): float(value) for key, value in seconds.items()}, sort_keys=True)


def _round(row: sa.Row[Any]) -> Round:
    return Round(
        run=row.run,
        number=row.number,
        kind=Kind(row.kind),
        state=RoundState(row.state),
        opened=row.opened,
        closed=row.closed,
        first=tuple(canonical.decode(row.first)) if row.first else None,
        released=row.released,
        version=row.version,
        seconds=canonical.decode(row.seconds),
        bytes=row.bytes,
        survivors=tuple(canonical.decode(row.survivors)),
    )


def _attempt(row: sa.Row[Any]) -> Attempt:
    return Attempt(
        run=row.run,
        round=row.round,
        number=row.number,
        phase=Phase(row.phase),
        deadline=row.deadline,
        opening=Opening.parse(row.opening),
        roster=Roster.parse(row.roster) if row.roster else None,
        survivors=Survivors.parse(row.survivors) if row.survivors else None,
        phases={Phase(phase): began for phase, began in canonical.decode(row.phases).items()},
        reason=row.reason,
    )


class History(Events):
    def round(self, run: str, number: int) -> Round:
        """Raises NotFound."""
        with self._read() as connection:
            return self._round(connection, run, number)

    def rounds(self, run: str, last: int | None = None) -> list[Round]:
        """By number; only the `last` ones if given. Empty before the first."""
        table = schema.rounds
        query = sa.select(table).where(table.c.run == run).order_by(table.c.number.desc()).limit(last)
        with self._read() as connection:
            return [_round(row) for row in connection.execute(query)][::-1]

    def attempt(self, run: str, round: int, number: int) -> Attempt:
        """Raises NotFound."""
        with self._read() as connection:
            return self._attempt(connection, run, round, number)

    def attempts(self, run: str, round: int) -> list[Attempt]:
        """By number; the last one is the only one that may be open."""
        with self._read() as connection:
            return self._attempts(connection, run, round)

    def _round(self, connection: sa.Connection, run: str, number: int) -> Round:
        table = schema.rounds
        row = connection.execute(sa.select(table).where(table.c.run == run, table.c.number == number)).one_or_none()
        if row is None:
            raise NotFound(f"There is no round {number} of run {run}.")
        return _round(row)

    def _last_round(self, connection: sa.Connection, run: str) -> Round | None:
        table = schema.rounds
        query = sa.select(table).where(table.c.run == run).order_by(table.c.number.desc()).limit(1)
        row = connection.execute(query).one_or_none()
        return _round(row) if row else None

    def _attempt(self, connection: sa.Connection, run: str, round: int, number: int) -> Attempt:
        table = schema.attempts
        query = sa.select(table).where(table.c.run == run, table.c.round == round, table.c.number == number)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"There is no attempt {number} of round {round} of run {run}.")
        return _attempt(row)

    def _attempts(self, connection: sa.Connection, run: str, round: int) -> list[Attempt]:
        table = schema.attempts
        query = sa.select(table).where(table.c.run == run, table.c.round == round).order_by(table.c.number)
        return [_attempt(row) for row in connection.execute(query)]

    def _end_attempt(self, connection: sa.Connection, attempt: Attempt, phase: Phase, reason: str) -> None:
        """Moves the attempt to DONE or FAILED and deletes what sites sent in it: shares, though sealed, are not
        kept longer than they are needed, and the database stays small over a thousand rounds."""
        run.move(attempt.phase, phase)
        phases = times({**attempt.phases, phase: self._clock()})
        values = {"phase": phase.value, "reason": reason, "phases": phases}
        table = schema.attempts
        where = (table.c.run == attempt.run, table.c.round == attempt.round, table.c.number == attempt.number)
        connection.execute(sa.update(table).where(*where).values(values))
        for uploads in _UPLOADS:
            connection.execute(sa.delete(uploads).where(uploads.c.run == attempt.run, uploads.c.round == attempt.round))

    def _end_round(self, connection: sa.Connection, round: Round, state: RoundState) -> None:
        run.move(round.state, state)
        table = schema.rounds
        where = (table.c.run == round.run, table.c.number == round.number)
        connection.execute(sa.update(table).where(*where).values(state=state.value, closed=self._clock()))
