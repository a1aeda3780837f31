"""Brings a database to the schema of this version, with Alembic inside the package."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from koinon.domain.errors import Conflict

_LOCK = 0x6B6F696E  # PostgreSQL's advisory lock of two hubs that migrate at once ("koin")


def upgrade(connection: sa.Connection) -> None:
    """Within the caller's transaction. Raises Conflict if the database is of a revision unknown here."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        known = ", ".join(ScriptDirectory.from_config(config).get_heads())
        raise Conflict(
            f"The database was written by another version of Koinon (this one knows {known}).",
            todo="Start the version that wrote it, or a newer one.",
        ) from None
