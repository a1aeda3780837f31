"""The connection, its transactions, and the fence that lets only one hub write."""

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from koinon.domain.errors import Conflict, Invalid, Unavailable
from koinon.store import migrations, schema

_BUSY_SECONDS = 10
_CONNECTIONS = 40  # as many as a thread pool has threads (anyio: 40), so that none waits for another's

_HOLDER = sa.select(schema.fence.c.holder).with_for_update(read=True)  # built once: it runs with every write


def parse_url(url: str) -> sa.URL:
    """Raises Invalid, without the password, for anything but SQLite and PostgreSQL."""
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise Invalid("This is no database URL.", todo="Use sqlite:////folder/hub.sqlite or postgresql://…") from None
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise Invalid(f"{parsed.drivername} is no database to keep a hub in.", todo="Use SQLite or PostgreSQL.")
    return parsed.set(drivername="sqlite+pysqlite")


def _engine(url: sa.URL) -> sa.Engine:
    common: dict[str, Any] = {"hide_parameters": True, "pool_size": _CONNECTIONS, "max_overflow": 0}
    if url.get_backend_name() == "postgresql":
        # A peer that vanished without a word is noticed after 10 s, and a connection is tried before it is used.
        alive = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 10_000}
        text = {"client_encoding": "utf8"}  # else the driver gives bytes from a database made as SQL_ASCII
        return sa.create_engine(url, pool_pre_ping=True, connect_args={**alive, **text}, **common)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, **common)

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions begin below, not when the driver thinks fit
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """Turns the driver's ways of saying that the database is away into Unavailable."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise _unavailable(str(error.orig)) from None
    except PoolTimeout:
        raise _unavailable("all connections are busy") from None
    except DBAPIError as error:
        if error.connection_invalidated:
            raise _unavailable(str(error.orig)) from None
        raise


def _unavailable(text: str) -> Unavailable:
    first = text.strip().partition("\n")[0]
    return Unavailable(f"The database is away: {first}.", todo="The same call works again once it is back.")


class Database:
    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        """`sqlite:////absolute/path.sqlite` (folder must exist) or `postgresql://user@host/name`. Opens nothing yet."""
        self._engine = _engine(parse_url(url))
        self._writing = self._engine.execution_options(writes=True)
        self._reading = self._engine
        if self._engine.dialect.name == "postgresql":  # one snapshot for all of a verb's reads, as SQLite has it
            self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ")
        # SQLite lets one connection write; waiting here is fair and prompt, its own waiting sleeps and retries.
        self._turn = threading.Lock() if self._engine.dialect.name == "sqlite" else contextlib.nullcontext()
        self._clock = clock
        self._holder: str | None = None

    def migrate(self) -> None:
        """Brings the schema to this version; repeatable. Raises Conflict if a newer Koinon wrote the database."""
        self._create_file()
        with self._write(fenced=False) as connection:
            migrations.upgrade(connection)

    def acquire(self) -> int:
        """Makes this Store the only writer, for ever: returns the fence number, one more than the last.

        Every write transaction re-checks it and raises Conflict after another Store acquired. Before acquire,
        all writes but users' and enrolments' raise Conflict; reads work.
        """
        holder = secrets.token_hex(16)  # the number alone would repeat after a restored backup
        with self._write(fenced=False) as connection:
            row = {"id": 1, "number": 0, "holder": ""}
            connection.execute(self._insert(schema.fence).values(row).on_conflict_do_nothing())
            following = sa.update(schema.fence).values(number=schema.fence.c.number + 1, holder=holder)
            number = connection.execute(following.returning(schema.fence.c.number)).scalar_one()
        self._holder = holder
        return int(number)

    def ping(self) -> None:
        """Raises Unavailable if the database does not answer (for /readyz)."""
        with self._read() as connection:
            connection.execute(sa.select(1))

    def set_meta(self, key: str, value: str) -> None:
        with self._write() as connection:
            self._put(connection, schema.meta, {"key": key}, {"value": value})

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def _create_file(self) -> None:
        """SQLite would create a file that all may read; its log takes over the mode.

        NB: an existing file is not opened here. Closing it would drop SQLite's own locks on it (POSIX: all locks
        of a process go with the first descriptor that it closes).
        """
        if self._engine.dialect.name == "sqlite":
            try:
                os.close(os.open(str(self._engine.url.database), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except FileExistsError:
                return
            except OSError as error:
                raise _unavailable(error.strerror or "it cannot be opened") from None

    @contextlib.contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with reachable(), self._reading.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def _write(self, *, fenced: bool = True) -> Iterator[sa.Connection]:
        """One transaction. It holds the fence against acquire until it ends."""
        with reachable(), self._turn, self._writing.connect() as connection, connection.begin():
            if fenced:
                self._check_fence(connection)
            yield connection

    def _check_fence(self, connection: sa.Connection) -> None:
        if self._holder is None:
            raise Conflict("This process has not acquired the database.", todo="Only the serving hub may write this.")
        # Shared: many transactions of this hub at once, but acquire waits for all of them.
        holder = connection.execute(_HOLDER).scalar()
        if holder != self._holder:
            raise Conflict("Another hub has taken over this database.", todo="Stop this one.")

    def _insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """The dialect's own, which knows what to do on a conflict."""
        return sqlite.insert(table) if self._engine.dialect.name == "sqlite" else postgresql.insert(table)

    def _add(self, connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """True if added; False if a row with a unique value of it is there."""
        statement = self._insert(table).on_conflict_do_nothing()
        result = connection.execute(statement, dict(row), execution_options={"preserve_rowcount": True})
        return bool(result.rowcount == 1)

    def _put(
        self, connection: sa.Connection, table: sa.Table, key: Mapping[str, Any], values: Mapping[str, Any]
    ) -> None:
        statement = self._insert(table).values({**key, **values})
        connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=dict(values)))
