"""Rounds and attempts: every step is one transaction, may be repeated, and is refused out of order."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from koinon.domain import canonical
from koinon.domain import run as machine
from koinon.domain.errors import Conflict, Invalid
from koinon.domain.run import Kind, Phase, RoundState, RunState
from koinon.domain.wire import ArtifactRef, Opening, Roster, Survivors
from koinon.store import history, schema
from koinon.store.records import Attempt, Round
from koinon.store.runs import Runs


class Rounds(Runs):
    """Each verb that is called again with what it stored returns the same and changes nothing (no second event).
    All raise NotFound for an unknown run, round or attempt and Conflict where the state machine forbids it."""

    def open_round(self, opening: Opening, deadline: float, data: Mapping[str, Any] | None = None) -> Attempt:
        """Opens round `opening.round` with attempt 1 in phase INIT (kind init) or KEYS.

        Raises Conflict unless the run is RUNNING, no round is open, the number is the last one's plus one (0 at
        first) and `opening.audit` is head(run) (an event came between: read it and call again).
        """
        with self._write() as connection:
            self._head_for_update(connection, opening.run)
            run = self._run(connection, opening.run)
            last = self._last_round(connection, opening.run)
            if last and last.number == opening.round and last.state is RoundState.OPEN and opening.attempt == 1:
                first = self._attempt(connection, opening.run, opening.round, 1)
                if first.opening == opening:
                    return first
            if run.state is not RunState.RUNNING:
                raise Conflict(f"Run {run.id} is {run.state}.")
            following = last.number + 1 if last else 0
            if (last and last.state is RoundState.OPEN) or (opening.round, opening.attempt) != (following, 1):
                raise Conflict(f"Round {opening.round} cannot be opened now.", todo=f"{following} is the next one.")
            row = {"run": run.id, "number": opening.round, "kind": opening.kind.value, "state": RoundState.OPEN.value}
            row |= {"opened": self._clock(), "released": False, "version": run.version}
            row |= {"seconds": "{}", "bytes": 0, "survivors": "[]"}
            connection.execute(sa.insert(schema.rounds).values(row))
            if opening.kind is not Kind.INIT:
                self._spend(connection, run.project, "rounds")
            return self._open_attempt(connection, opening, deadline, data)

    def open_attempt(self, opening: Opening, deadline: float, data: Mapping[str, Any] | None = None) -> Attempt:
        """The next attempt of the open round, once the last one is FAILED and nothing was released. Checks
        `opening.audit` like open_round."""
        with self._write() as connection:
            round, last = self._current(connection, opening.run, opening.round)
            if last.opening == opening:
                return last
            if round.released or last.phase is not Phase.FAILED or opening.attempt != last.number + 1:
                raise Conflict(f"Attempt {opening.attempt} of round {opening.round} cannot be opened now.")
            if opening.kind is not round.kind:
                raise Conflict(f"Round {opening.round} is of kind {round.kind}.")
            return self._open_attempt(connection, opening, deadline, data)

    def advance(
        self,
        run: str,
        round: int,
        attempt: int,
        phase: Phase,
        deadline: float,
        *,
        roster: Roster | None = None,
        survivors: Survivors | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Attempt:
        """To the next phase; from then on put_message refuses new messages of the old one. `roster` is given with
        SHARES (the first attempt's fixes Round.first), `survivors` with SURVIVORS; both never change again."""
        if (roster is not None) != (phase is Phase.SHARES) or (survivors is not None) != (phase is Phase.SURVIVORS):
            raise Invalid("A roster is given with the phase shares, survivors with the phase survivors, and only then.")
        with self._write() as connection:
            stored, last = self._current(connection, run, round)
            if last.number != attempt:
                raise Conflict(f"Attempt {attempt} of round {round} is not the last one.")
            if last.phase is phase and roster in (None, last.roster) and survivors in (None, last.survivors):
                return last
            if history.is_over(machine.move(last.phase, phase)):
                raise Conflict(f"An attempt becomes {phase} by another verb.")
            values = {"phase": phase.value, "deadline": deadline}
            values["phases"] = history.times({**last.phases, phase: self._clock()})
            told: dict[str, Any] = {"round": round, "attempt": attempt, "phase": phase, "deadline": deadline}
            if roster is not None:
                values["roster"] = roster.encode().decode()
                told |= {"sites": roster.sites, "roster": roster.digest()}
                self._fix_first(connection, stored, roster)
            if survivors is not None:
                values["survivors"] = survivors.encode().decode()
                told |= {"sites": sorted(survivors.roots), "survivors": survivors.digest()}
            table = schema.attempts
            where = (table.c.run == run, table.c.round == round, table.c.number == attempt)
            connection.execute(sa.update(table).where(*where).values(values))
            self._append(connection, run, "attempt.advanced", {**(data or {}), **told})
            return self._attempt(connection, run, round, attempt)

    def fail_attempt(
        self, run: str, round: int, attempt: int, reason: str, data: Mapping[str, Any] | None = None
    ) -> Attempt:
        """Ends the attempt and deletes its messages, parts and fold. Raises Conflict once a share was released."""
        with self._write() as connection:
            stored, last = self._current(connection, run, round)
            if last.number != attempt:
                raise Conflict(f"Attempt {attempt} of round {round} is not the last one.")
            if last.phase is Phase.FAILED:
                return last
            if stored.released:
                raise Conflict(f"Shares of round {round} were released.", todo="Void the round instead.")
            self._end_attempt(connection, last, Phase.FAILED, reason)
            told = {"round": round, "attempt": attempt, "reason": reason}
            self._append(connection, run, "attempt.failed", {**(data or {}), **told})
            return self._attempt(connection, run, round, attempt)

    def mark_released(self, run: str, round: int) -> None:
        """A release reached the hub: MUST be called before it is used, so that no other attempt can be opened."""
        with self._write() as connection:
            stored, last = self._current(connection, run, round)
            if stored.released:
                return
            if last.phase is not Phase.UNMASK:
                raise Conflict(f"Nothing can be released while round {round} is in phase {last.phase}.")
            table = schema.rounds
            where = (table.c.run == run, table.c.number == round)
            connection.execute(sa.update(table).where(*where).values(released=True))

    def void_round(self, run: str, round: int, reason: str, data: Mapping[str, Any] | None = None) -> Round:
        """Too few released: the model stays. Fails the attempt and deletes its messages, parts and fold."""
        with self._write() as connection:
            self._head_for_update(connection, run)
            if self._round(connection, run, round).state is RoundState.VOID:
                return self._round(connection, run, round)
            stored, last = self._current(connection, run, round)
            if not history.is_over(last.phase):
                self._end_attempt(connection, last, Phase.FAILED, reason)
            self._end_round(connection, stored, RoundState.VOID)
            self._append(connection, run, "round.void", {**(data or {}), "round": round, "reason": reason})
            return self._round(connection, run, round)

    def commit_round(
        self,
        run: str,
        round: int,
        *,
        model: ArtifactRef | None,
        optimiser: ArtifactRef | None,
        result: ArtifactRef | None,
        version: int,
        metrics: Mapping[str, Mapping[str, float]],
        seconds: Mapping[str, float],
        bytes: int,
        survivors: Sequence[str],
        data: Mapping[str, Any] | None = None,
    ) -> Round:
        """One transaction: round COMMITTED, attempt DONE, artifacts listed, run's model, optimiser and `version`
        (of the new model) set, `metrics` stored under Round.version, messages, parts, fold and sealings deleted.
        An artifact of None keeps the run's last. With `result` the run becomes COMPLETED and a release is counted.

        Again with the same artifacts, version and survivors: returns the same round. With others: Conflict.
        """
        refs = {"model": model, "optimiser": optimiser, "result": result}
        texts = {kind: ref.encode().decode() for kind, ref in refs.items() if ref is not None}
        digest = canonical.digest({"artifacts": texts, "version": version, "survivors": sorted(survivors)})
        table = schema.rounds
        where = (table.c.run == run, table.c.number == round)
        with self._write() as connection:
            self._head_for_update(connection, run)
            done = self._round(connection, run, round)
            if done.state is RoundState.COMMITTED:
                if connection.execute(sa.select(table.c.committed).where(*where)).scalar() != digest:
                    raise Conflict(f"Round {round} of run {run} was committed with another outcome.")
                return done
            stored, last = self._current(connection, run, round)
            self._end_attempt(connection, last, Phase.DONE, "")
            self._end_round(connection, stored, RoundState.COMMITTED)
            values: dict[str, Any] = {"committed": digest, "seconds": history.times(seconds), "bytes": bytes}
            values["survivors"] = canonical.encode(sorted(survivors)).decode()
            connection.execute(sa.update(table).where(*where).values(values))
            self._set_outcome(connection, run, round, texts, version)
            if metrics:
                scores = json.dumps(metrics, sort_keys=True)
                self._put(connection, schema.metrics, {"run": run, "version": stored.version}, {"scores": scores})
            told = {"round": round, "kind": stored.kind, "version": version, "scored": stored.version}
            told |= {kind: ref and ref.model_dump() for kind, ref in refs.items()}
            told |= {"survivors": sorted(survivors), "metrics": metrics, "seconds": seconds, "bytes": bytes}
            self._append(connection, run, "round.committed", {**(data or {}), **told})
            if result is not None:
                self._complete(connection, run)
            return self._round(connection, run, round)

    def _open_attempt(
        self, connection: sa.Connection, opening: Opening, deadline: float, data: Mapping[str, Any] | None
    ) -> Attempt:
        if opening.audit != self._head_for_update(connection, opening.run):
            raise Conflict("Another event came between.", todo="Read the head of the chain and open again.")
        phase = Phase.INIT if opening.kind is Kind.INIT else Phase.KEYS
        key = {"run": opening.run, "round": opening.round, "number": opening.attempt}
        row = {"phase": phase.value, "deadline": deadline, "opening": opening.encode().decode(), "reason": ""}
        row["phases"] = history.times({phase: self._clock()})
        connection.execute(sa.insert(schema.attempts).values(key | row))
        told = {"round": opening.round, "attempt": opening.attempt, "kind": opening.kind, "deadline": deadline}
        told |= {"invited": opening.invited, "opening": opening.digest()}
        kind = "round.opened" if opening.attempt == 1 else "attempt.opened"
        self._append(connection, opening.run, kind, {**(data or {}), **told})
        return self._attempt(connection, opening.run, opening.round, opening.attempt)

    def _current(self, connection: sa.Connection, run: str, round: int) -> tuple[Round, Attempt]:
        """The round, which must be open, and its last attempt. The run's chain is locked: one change at a time."""
        self._head_for_update(connection, run)
        stored = self._round(connection, run, round)
        if stored.state is not RoundState.OPEN:
            raise Conflict(f"Round {round} of run {run} is {stored.state}.")
        return stored, self._attempts(connection, run, round)[-1]

    def _fix_first(self, connection: sa.Connection, round: Round, roster: Roster) -> None:
        if round.first is None:
            table = schema.rounds
            where = (table.c.run == round.run, table.c.number == round.number)
            first = canonical.encode(roster.first).decode()
            connection.execute(sa.update(table).where(*where).values(first=first))
        elif round.first != roster.first or not set(roster.sites) <= set(round.first):
            raise Conflict(f"The roster is not one of the sites that first took part in round {round.number}.")

    def _set_outcome(
        self, connection: sa.Connection, run: str, round: int, texts: Mapping[str, str], version: int
    ) -> None:
        values: dict[str, Any] = {**texts, "version": version}
        if "model" in texts:
            values["model_round"] = round
        connection.execute(sa.update(schema.runs).where(schema.runs.c.id == run).values(values))
        for kind, text in texts.items():
            row = {"run": run, "round": round, "kind": kind, "ref": text}
            connection.execute(sa.insert(schema.artifacts).values(row))

    def _complete(self, connection: sa.Connection, run: str) -> None:
        current = self._run(connection, run)
        self._move_run(connection, current, RunState.COMPLETED, "", {})
        self._spend(connection, current.project, "releases")

    def _spend(self, connection: sa.Connection, project: str, what: str) -> None:
        """Counts a round or a release against the project's life."""
        table = schema.projects
        spent = {what: table.c[what] + 1}
        connection.execute(sa.update(table).where(table.c.hash == project).values(spent))
