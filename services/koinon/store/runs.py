"""Runs: submitted once per key, moved through their states, deleted when final."""

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from koinon.domain import canonical
from koinon.domain import run as machine
from koinon.domain.errors import Conflict, NotFound
from koinon.domain.parameters import Parameters
from koinon.domain.run import Phase, RoundState, RunState
from koinon.domain.wire import ArtifactRef
from koinon.store import history, schema
from koinon.store.history import History
from koinon.store.records import Artifact, Run


def _ref(text: str | None) -> ArtifactRef | None:
    return ArtifactRef.parse(text) if text else None


def _run(row: sa.Row[Any]) -> Run:
    return Run(
        id=row.id,
        project=row.project,
        owner=row.owner,
        parameters=canonical.decode(row.parameters),
        state=RunState(row.state),
        created=row.created,
        started=row.started,
        finished=row.finished,
        reason=row.reason,
        model=_ref(row.model),
        model_round=row.model_round,
        optimiser=_ref(row.optimiser),
        version=row.version,
        result=_ref(row.result),
    )


class Runs(History):
    def add_run(
        self, run: str, project: str, owner: str, parameters: Parameters, *, key: str | None = None, digest: str = ""
    ) -> Run:
        """A QUEUED run with the id `run` (caller draws it). `key` is the owner's Idempotency-Key, `digest` the
        hash of the request: the same key and digest return the run stored first (compare its id), another digest
        raises Conflict. Raises NotFound without the project (by hash)."""
        table = schema.runs
        row = {"id": run, "project": project, "owner": owner, "key": key, "digest": digest, "reason": "", "version": -1}
        row |= {"parameters": canonical.encode(parameters).decode(), "state": RunState.QUEUED.value}
        with self._write() as connection:
            if (
                connection.execute(sa.select(schema.projects.c.hash).where(schema.projects.c.hash == project)).scalar()
                is None
            ):
                raise NotFound(f"There is no project {project}.")
            if self._add(connection, table, row | {"created": self._clock()}):
                if not self._start_chain(connection, run, project):
                    raise Conflict(f"The id {run} is a deleted run's.", todo="Draw another one.")
                told = {"project": project, "owner": owner, "parameters": parameters}
                self._append(connection, run, "run.submitted", told)
                return self._run(connection, run)
            first = connection.execute(sa.select(table).where(table.c.owner == owner, table.c.key == key)).one_or_none()
        if first is None:
            raise Conflict(f"There is a run {run} already.", todo="Draw another id.")
        if first.digest != digest:
            raise Conflict(
                "This Idempotency-Key was used for another request.",
                todo="Use a new key for a new run, or ask the same.",
            )
        return _run(first)

    def run(self, run: str) -> Run:
        """Raises NotFound."""
        with self._read() as connection:
            return self._run(connection, run)

    def runs(
        self, *, project: str | None = None, owner: str | None = None, state: RunState | None = None, limit: int = 100
    ) -> list[Run]:
        """Newest first. `project` is a hash."""
        table = schema.runs
        query = sa.select(table).order_by(table.c.created.desc(), table.c.id).limit(limit)
        for column, value in ((table.c.project, project), (table.c.owner, owner), (table.c.state, state)):
            if value is not None:
                query = query.where(column == str(value))
        with self._read() as connection:
            return [_run(row) for row in connection.execute(query)]

    def active_runs(self) -> list[Run]:
        """QUEUED and RUNNING ones, oldest first."""
        table = schema.runs
        active = [state.value for state in RunState if not machine.is_final(state)]
        query = sa.select(table).where(table.c.state.in_(active)).order_by(table.c.created, table.c.id)
        with self._read() as connection:
            return [_run(row) for row in connection.execute(query)]

    def set_run_state(self, run: str, state: RunState, reason: str = "", data: Mapping[str, Any] | None = None) -> Run:
        """Moves the run (domain.run.move) with its event. A final state also fails its open round and attempt and
        deletes their messages, in the same transaction. Already in `state`: changes nothing. Raises NotFound,
        Conflict."""
        with self._write() as connection:
            self._head_for_update(connection, run)
            stored = self._run(connection, run)
            if stored.state is state:
                return stored
            last = self._last_round(connection, run)
            if machine.is_final(state) and last and last.state is RoundState.OPEN:
                attempt = self._attempts(connection, run, last.number)[-1]
                if not history.is_over(attempt.phase):
                    self._end_attempt(connection, attempt, Phase.FAILED, reason)
                self._end_round(connection, last, RoundState.FAILED)
            self._move_run(connection, stored, state, reason, data or {})
            return self._run(connection, run)

    def delete_run(self, run: str) -> None:
        """Deletes all but the chain of events. Raises Conflict unless the run is final; NotFound. Delete the bytes
        of `artifacts(run)` first: a crash between then loses nothing that a repeated call would not finish."""
        with self._write() as connection:
            self._head_for_update(connection, run)
            stored = self._run(connection, run)
            if not machine.is_final(stored.state):
                raise Conflict(f"Run {run} is {stored.state}.", todo="Cancel it first.")
            connection.execute(sa.delete(schema.runs).where(schema.runs.c.id == run))
            self._append(connection, run, "run.deleted", {})

    def artifacts(self, run: str) -> list[Artifact]:
        """All that rounds of the run committed, oldest first."""
        table = schema.artifacts
        query = sa.select(table).where(table.c.run == run).order_by(table.c.round, table.c.kind)
        with self._read() as connection:
            rows = connection.execute(query)
            return [Artifact(row.run, row.round, row.kind, ArtifactRef.parse(row.ref)) for row in rows]

    def metrics(self, run: str) -> list[tuple[int, dict[str, dict[str, float]]]]:
        """(version of the model scored, domain.metrics.read of it), by version."""
        table = schema.metrics
        query = sa.select(table).where(table.c.run == run).order_by(table.c.version)
        with self._read() as connection:
            return [(row.version, json.loads(row.scores)) for row in connection.execute(query)]

    def _run(self, connection: sa.Connection, run: str) -> Run:
        row = connection.execute(sa.select(schema.runs).where(schema.runs.c.id == run)).one_or_none()
        if row is None:
            raise NotFound(f"There is no run {run}.")
        return _run(row)

    def _move_run(
        self, connection: sa.Connection, run: Run, state: RunState, reason: str, data: Mapping[str, Any]
    ) -> None:
        """The run's chain is locked by the caller."""
        now = self._clock()
        values: dict[str, Any] = {"state": machine.move(run.state, state).value, "reason": reason}
        if state is RunState.RUNNING:
            values["started"] = now
        if machine.is_final(state):
            values["finished"] = now
        connection.execute(sa.update(schema.runs).where(schema.runs.c.id == run.id).values(values))
        self._append(connection, run.id, f"run.{state}", {**data, "reason": reason})
