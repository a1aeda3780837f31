"""What a crash must not forget: one SQLite file, one writer, every step durable before its message leaves.

Verbs take and give whole documents; what is inside the protocol's states is `protection.site`'s matter. Secrets of an
attempt are in its `state` alone, and `erase` overwrites them (`secure_delete`, write-ahead log truncated). Together
with the marker (see `marker`) a journal restored from a backup is recognised: it starts a new epoch and refuses every
round opened before.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from koinon.agent.marker import Mark, Marker
from koinon.agent.policy import Counts, Known
from koinon.agent.records import SCHEMA, Control, Update, key_of
from koinon.domain import canonical, wire
from koinon.domain.errors import Conflict, Unavailable
from koinon.domain.run import Kind


class Journal:
    """The journal in `folder`. One process at a time: another one raises Conflict."""

    def __init__(self, folder: Path, marker: Marker) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._handle = os.open(folder / "journal.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            raise Conflict("Another agent serves this site.", where=str(folder), todo="Stop it first.") from None
        self._lock = RLock()
        self._marker = marker
        path = folder / "journal.sqlite"
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(SCHEMA)
        self.restored = self._compare_with_marker()

    def close(self) -> None:
        with self._lock:
            self._db.close()
            os.close(self._handle)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction. A full disk is Unavailable: nothing was changed, the same step works later."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise Unavailable(f"The journal could not be written: {error}.", todo="Is the disk full?") from None

    def _one(self, query: str, *values: Any) -> Any:
        with self._lock:
            return self._db.execute(query, values).fetchone()

    def _all(self, query: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # epoch and sequence

    def _compare_with_marker(self) -> bool:
        """True if the journal was behind its marker, and so a new epoch has begun."""
        mark = self._marker.read() or Mark(sequence=-1)
        if self._one("SELECT epoch FROM meta") is None:
            with self._write() as db:
                db.execute("INSERT INTO meta VALUES (1, 0)")
        rounds = dict(self._all("SELECT run, max(round) FROM attempts GROUP BY run"))
        floors = mark.rounds | {run: max(number, mark.rounds.get(run, -1)) for run, number in rounds.items()}
        self._last = Mark(mark.epoch, mark.sequence, floors)
        behind = Mark(*self._one("SELECT epoch, sequence FROM meta")).behind(mark)
        if behind:
            with self._write() as db:
                db.execute("UPDATE meta SET epoch = ?, sequence = ?", (mark.epoch + 1, mark.sequence + 1))
                for run, number in floors.items():
                    db.execute("DELETE FROM floors WHERE run = ? AND round < ?", (run, number))
                    db.execute("INSERT OR IGNORE INTO floors VALUES (?, ?)", (run, number))
                db.execute("UPDATE runs SET state = NULL")
                db.execute("DELETE FROM messages")
        self.tidy()
        self._settle()
        return behind

    def _settle(self, run: str | None = None, number: int = -1) -> None:
        """Brings the marker to the journal's epoch and sequence, if it is not there."""
        epoch, sequence = self._one("SELECT epoch, sequence FROM meta")
        if (epoch, sequence) != (self._last.epoch, self._last.sequence):
            mark = self._last.joined(run, number) if run is not None else self._last
            self._last = mark  # what it knows of rounds stays, should the write fail
            mark = Mark(epoch, sequence, mark.rounds)
            self._marker.write(mark)
            self._last = mark

    @property
    def epoch(self) -> int:
        return self._last.epoch

    def floor(self, run: str) -> int:
        """Rounds of `run` up to this one were opened before the epoch; -1 if none."""
        row = self._one("SELECT round FROM floors WHERE run = ?", run)
        return -1 if row is None else int(row[0])

    # what policy asks

    def known(self, run: str) -> Known | None:
        row = self._one("SELECT parameters FROM runs WHERE run = ?", run)
        if row is None:
            return None
        rows = self._all("SELECT round, attempt, digest FROM attempts WHERE run = ?", run)
        attempts = {(number, attempt): digest for number, attempt, digest in rows}
        return Known(row[0], max((number for number, _ in attempts), default=-1), attempts)

    def counts(self, project: str, run: str, number: int) -> Counts:
        of = "FROM counts WHERE project = ?"
        (inits,) = self._one(f"SELECT count(*) {of} AND kind = ?", project, Kind.INIT)
        (rounds,) = self._one(f"SELECT count(*) {of} AND kind <> ?", project, Kind.INIT)
        (releases,) = self._one(f"SELECT count(DISTINCT run) {of} AND kind <> ?", project, Kind.INIT)
        counted = self._one(f"SELECT 1 {of} AND run = ? AND round = ?", project, run, number)
        released = self._one(f"SELECT 1 {of} AND run = ? AND kind <> ?", project, run, Kind.INIT)
        (scored,) = self._one(
            f"SELECT count(*) {of} AND run = ? AND kind = ? AND round <> ?", project, run, Kind.EVALUATE, number
        )
        return Counts(rounds, releases, counted is not None, released is not None, inits, scored)

    def count_trouble(self, run: str) -> int:
        """One more trouble of research code in the run: which one it is, from 1 on."""
        with self._write() as db:
            db.execute("INSERT INTO troubles VALUES (?, 1) ON CONFLICT (run) DO UPDATE SET number = number + 1", (run,))
            (number,) = db.execute("SELECT number FROM troubles WHERE run = ?", (run,)).fetchone()
        return int(number)

    # the protocol's steps

    def join(
        self,
        opening: wire.Opening,
        state: str | None,
        phase: str,
        message: bytes,
        *,
        update: Update | None = None,
        erase: bool = False,
    ) -> None:
        """A new attempt with its keys and its first message, counted, and with the plain update it is about, if new.

        `state` replaces the run's last one and so erases its secrets, with `erase` from the disk before this returns:
        that is for secrets of which no share was released yet. Older attempts keep no message: what they did not send
        is never sent. A second update for the round is a Conflict.
        """
        run, number, attempt = key_of(opening)
        with self._lock:
            with self._write() as db:
                parameters = canonical.digest(opening.parameters)
                db.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, NULL)", (run, opening.manifest, parameters))
                db.execute("UPDATE runs SET state = ? WHERE run = ?", (state, run))
                db.execute("INSERT INTO attempts VALUES (?, ?, ?, ?)", (run, number, attempt, opening.digest()))
                db.execute("DELETE FROM messages WHERE run = ?", (run,))
                db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", (run, number, attempt, phase, message))
                db.execute("DELETE FROM updates WHERE run = ? AND round < ?", (run, number))
                if update is not None:
                    self._put_update(db, run, number, update)
                count = (opening.manifest, run, number, opening.kind.value)
                db.execute("INSERT OR IGNORE INTO counts VALUES (?, ?, ?, ?)", count)
            if erase:
                self.tidy()

    def _put_update(self, db: sqlite3.Connection, run: str, number: int, update: Update) -> None:
        if db.execute("SELECT 1 FROM updates WHERE run = ? AND round = ?", (run, number)).fetchone():
            raise Conflict(f"Round {number} of run {run} is trained already.")
        values = (run, number, update.basis, json.dumps(update.files), json.dumps(update.report))
        db.execute("INSERT INTO updates VALUES (?, ?, ?, ?, ?)", values)

    def step(
        self, opening: wire.Opening, state: str, phase: str, message: bytes | None, *, latch: bool = False
    ) -> None:
        """The state after an input and the message that follows from it, durable together.

        `latch`: shares will be released, so the marker moves too before this returns.
        """
        run, number, attempt = key_of(opening)
        with self._lock:
            with self._write() as db:
                db.execute("UPDATE runs SET state = ? WHERE run = ?", (state, run))
                if message is not None:
                    db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", (run, number, attempt, phase, message))
                if latch:
                    db.execute("UPDATE meta SET sequence = sequence + 1")
            if latch:
                self._settle(run, number)

    def state(self, run: str) -> str | None:
        row = self._one("SELECT state FROM runs WHERE run = ?", run)
        return None if row is None else row[0]

    def message(self, opening: wire.Opening, phase: str) -> bytes | None:
        """What was or would have been sent in this phase: a repeat sends the same bytes.

        Nothing leaves before the marker is where the journal is, even if writing it failed at first.
        """
        with self._lock:
            self._settle(opening.run, opening.round)
        row = self._one(
            "SELECT body FROM messages WHERE run = ? AND round = ? AND attempt = ? AND phase = ?",
            *key_of(opening),
            phase,
        )
        return None if row is None else bytes(row[0])

    def erase(self, run: str, state: str | None) -> None:
        """The run is over here: its state becomes `state`, which holds no secret; messages and updates go."""
        with self._write() as db:
            db.execute("UPDATE runs SET state = ? WHERE run = ?", (state, run))
            for table in ("messages", "updates", "controls"):
                db.execute(f"DELETE FROM {table} WHERE run = ?", (run,))
        self.tidy()

    def tidy(self) -> None:
        """Removes from the disk what was overwritten: the write-ahead log still held it."""
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def unerased(self) -> list[str]:
        """Runs that still hold secrets, messages or updates."""
        tables = ("messages", "updates", "controls")
        return [str(run) for (run,) in self._all(" UNION ".join(f"SELECT run FROM {table}" for table in tables))]

    def project(self, run: str) -> str | None:
        """The manifest's hash of a run that took part here."""
        row = self._one("SELECT project FROM runs WHERE run = ?", run)
        return None if row is None else str(row[0])

    # plain updates, control variates

    def files(self, run: str) -> set[str]:
        """The names of the run's plain updates."""
        return {
            name for (text,) in self._all("SELECT files FROM updates WHERE run = ?", run) for name in json.loads(text)
        }

    def update(self, run: str, number: int) -> Update | None:
        row = self._one("SELECT basis, files, report FROM updates WHERE run = ? AND round = ?", run, number)
        return None if row is None else Update(row[0], json.loads(row[1]), json.loads(row[2]))

    def control(self, run: str) -> Control:
        row = self._one("SELECT file, pending, pending_file FROM controls WHERE run = ?", run)
        return Control() if row is None else Control(*row)

    def put_control(self, run: str, control: Control) -> None:
        values = (run, control.file, control.pending, control.pending_file)
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO controls (run, file, pending, pending_file) VALUES (?, ?, ?, ?)", values)
