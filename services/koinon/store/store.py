"""The store: every verb by which the hub remembers. One class for SQLite and PostgreSQL, one shared test suite.

`Store(url)` · `migrate()` · `acquire()` and then any verb, from any thread. See `lock.HubLock` for the folder
and `backup` for copies.
"""

from koinon.store.accounts import Accounts
from koinon.store.messages import Messages
from koinon.store.projects import Projects
from koinon.store.rounds import Rounds


class Store(Accounts, Projects, Rounds, Messages):
    """All verbs. Every write is one durable transaction. Any verb raises Unavailable while the database is away
    (it may then be called again: all but append_event are repeatable) and Conflict once another hub acquired."""
