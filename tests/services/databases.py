"""Both databases for real: every test that asks for `database_url` runs on SQLite and on PostgreSQL."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from koinon.store import database
from koinon.store.store import Store
from tests.services import postgres

_names = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    with postgres.running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> str:
    """A fresh, empty database."""
    return postgres_server.url(f"hub{next(_names)}")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.sqlite'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """Migrated and acquired."""
    opened = Store(database_url)
    opened.migrate()
    opened.acquire()
    yield opened
    opened.close()


@pytest.fixture
def raw(store: Store, database_url: str) -> Iterator[sa.Engine]:
    """Past the store, as somebody with the database's password would write."""
    engine = sa.create_engine(database.parse_url(database_url))
    yield engine
    engine.dispose()
