"""Copies of an SQLite database while the hub runs, and back. PostgreSQL has pg_dump and pg_restore for this."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from koinon.domain.errors import Conflict, Invalid, NotFound
from koinon.store import database
from koinon.store.store import Store


def backup(url: str, target: Path) -> None:
    """A consistent copy in the new file `target` (mode 0600), durable when this returns.

    Raises Conflict if `target` exists, NotFound without a database, Invalid for PostgreSQL or a damaged database.
    """
    source = _path(url)
    if not source.is_file():
        raise NotFound(f"There is no database {source}.")
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise Conflict(f"There is a file {target} already.", todo="Name a new file.") from None
    try:
        _copy(source, target)
        with _open(target) as copy:
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        _sync(target.parent)
    except BaseException:
        target.unlink()
        raise


def restore(url: str, source: Path) -> None:
    """Checks `source` (integrity, schema, every chain of events) and makes it the database, in one transaction.

    Hold the folder's HubLock. Raises Invalid, Conflict, NotFound or Untrusted for a bad copy; the database then
    stays as it is. A copy by an older version of Koinon is migrated.
    """
    path = _path(url)
    checked = path.with_name(f"{path.name}.restore")
    _remove(checked)  # of a restore that was killed
    try:
        backup(f"sqlite:///{source.absolute()}", checked)
        _check(checked)
        with _open(checked) as copy:
            copy.execute("UPDATE fence SET holder = ''")  # a hub that still runs writes nothing into it
        path.touch(0o600)
        _copy(checked, path)
        _sync(path.parent)
    finally:
        _remove(checked)


def _path(url: str) -> Path:
    parsed = database.parse_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise Invalid("Only an SQLite database is copied here.", todo="Use pg_dump and pg_restore for PostgreSQL.")
    return Path(parsed.database).absolute()


@contextlib.contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=10)
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        raise Invalid(f"This is no sound SQLite database: {error}.", where=str(path)) from None
    finally:
        connection.close()


def _copy(source: Path, target: Path) -> None:
    """All pages in one step: a snapshot of the source, one transaction of the target."""
    with _open(source) as giving, _open(target) as taking:
        taking.execute("PRAGMA synchronous = FULL")
        giving.backup(taking)


def _check(path: Path) -> None:
    with _open(path) as copy:
        found = copy.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok" or copy.execute("PRAGMA foreign_key_check").fetchone():
            raise Invalid("The copy is damaged.", where=str(path), todo="Use another one.")
        if not copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            raise Invalid("This is not a hub's database.", where=str(path))
    store = Store(f"sqlite:///{path}")
    try:
        store.migrate()
        for run in store.chains():
            store.verify_chain(run)
    finally:
        store.close()


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
