"""Fixtures that the services' tests share."""

from tests.services.databases import database_url, postgres_server, postgres_url, raw, store

__all__ = ["database_url", "postgres_server", "postgres_url", "raw", "store"]
