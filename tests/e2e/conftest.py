"""Orphans become this process's own, so that a test can see them; else they would be init's."""

import pytest

from koinon.client import supervisor


def pytest_sessionstart(session: pytest.Session) -> None:
    assert supervisor.adopt_orphans()
