"""Alembic runs this file. The connection and its transaction are the caller's (migrations.upgrade)."""

from alembic import context

from koinon.store import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    transactional_ddl=True,  # SQLite's too, since the store begins its transactions itself
)
with context.begin_transaction():
    context.run_migrations()
