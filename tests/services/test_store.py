"""The shared suite: every promise of the store, on SQLite and on PostgreSQL."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from koinon.domain.errors import Conflict, Invalid, NotFound, Unauthenticated, Untrusted
from koinon.domain.grant import Grant, Revocation
from koinon.domain.keys import SigningKey
from koinon.domain.wire import SiteStatus
from koinon.store import accounts, schema
from koinon.store.store import Store
from tests.services import federation, postgres
from tests.unit.domain import manifests

LATER = federation.LATER


def test_the_migrated_schema_is_the_metadata(store: Store, raw: sa.Engine) -> None:
    store.migrate()  # a second time changes nothing
    with raw.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        inspector = sa.inspect(connection)
        assert [c["name"] for c in inspector.get_check_constraints("fence")] == ["ck_fence_single"]
        for name, table in schema.metadata.tables.items():
            cascades = {
                (tuple(f["constrained_columns"]), f["options"].get("ondelete"))
                for f in inspector.get_foreign_keys(name)
            }
            assert cascades == {(tuple(c.column_keys), c.ondelete) for c in table.foreign_key_constraints}


def test_a_database_of_a_newer_version_is_refused(store: Store, raw: sa.Engine) -> None:
    with raw.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="another version"):
        store.migrate()


def test_a_database_without_an_encoding_keeps_text(postgres_server: postgres.Server) -> None:
    with contextlib.closing(Store(postgres_server.url("without", "SQL_ASCII"))) as store:
        store.migrate()
        store.acquire()
        project = federation.project(store, purpose="Überleben nach Eingriffen")
        assert store.project(project.hash).manifest.purpose == "Überleben nach Eingriffen"


def test_users_are_known_by_the_hash_of_their_token(store: Store) -> None:
    store.add_user("ada", accounts.hash_token("secret"))
    store.add_user("bob", accounts.hash_token("other"))
    found = store.user_by_token(accounts.hash_token("secret"))
    assert found is not None
    assert found.name == "ada"
    assert store.user_by_token("secret") is None
    with pytest.raises(Conflict):
        store.add_user("ada", accounts.hash_token("third"))
    store.remove_user("ada")
    assert store.user_by_token(accounts.hash_token("secret")) is None
    assert [user.name for user in store.users()] == ["bob"]
    with pytest.raises(NotFound):
        store.remove_user("ada")


def test_an_enrolment_token_lets_one_root_in_once(store: Store) -> None:
    lille = manifests.ROOTS["lille"]
    store.add_enrolment("a" * 64, "lille", LATER)
    with pytest.raises(Unauthenticated):
        store.redeem_enrolment("b" * 64, "lille", lille.public, federation.certificate("lille"))
    with pytest.raises(Unauthenticated):
        store.redeem_enrolment("a" * 64, "lyon", lille.public, federation.certificate("lyon"))
    with pytest.raises(Untrusted):
        store.redeem_enrolment("a" * 64, "lille", manifests.ROOTS["lyon"].public, federation.certificate("lille"))
    row = store.redeem_enrolment("a" * 64, "lille", lille.public, federation.certificate("lille"))
    assert store.redeem_enrolment("a" * 64, "lille", lille.public, federation.certificate("lille")) == row
    thief = SigningKey(b"t" * 32)
    with pytest.raises(Unauthenticated):
        store.redeem_enrolment("a" * 64, "lille", thief.public, federation.certificate("lille", root=thief))
    store.add_enrolment("c" * 64, "lille", LATER)
    with pytest.raises(Conflict):
        store.redeem_enrolment("c" * 64, "lille", thief.public, federation.certificate("lille", root=thief))
    store.add_enrolment("d" * 64, "nice", 1.0)
    with pytest.raises(Unauthenticated, match="expired"):
        store.redeem_enrolment("d" * 64, "nice", manifests.ROOTS["nice"].public, federation.certificate("nice"))
    assert store.sites() == [row]


def test_a_certificate_is_renewed_by_a_higher_epoch_only(store: Store) -> None:
    store.add_enrolment("a" * 64, "lille", LATER)
    store.redeem_enrolment("a" * 64, "lille", manifests.ROOTS["lille"].public, federation.certificate("lille", 2))
    assert store.renew_certificate(federation.certificate("lille", 3)).certificate.epoch == 3
    assert store.renew_certificate(federation.certificate("lille", 3)).certificate.epoch == 3
    with pytest.raises(Conflict):
        store.renew_certificate(federation.certificate("lille", 2))
    with pytest.raises(Untrusted):
        store.renew_certificate(federation.certificate("lille", 4, root=manifests.ROOTS["lyon"]))
    with pytest.raises(NotFound):
        store.renew_certificate(federation.certificate("lyon", 4))


def test_a_site_is_seen(store: Store, database_url: str) -> None:
    store.add_enrolment("a" * 64, "lille", LATER)
    store.redeem_enrolment("a" * 64, "lille", manifests.ROOTS["lille"].public, federation.certificate("lille"))
    store.touch_site("lille", SiteStatus(version="0.1.0", doing="idle"), 0.5)
    store.touch_site("lille", SiteStatus(version="0.1.0", doing="training"), 0.25)
    row = store.site("lille")
    assert row.status is not None
    assert (row.status.doing, row.clock_offset) == ("training", 0.25)
    later = Store(database_url)  # after a restart: no older than ten seconds
    assert later.site("lille").clock_offset == 0.5
    later.close()
    with pytest.raises(NotFound):
        store.touch_site("paris", None, 0.0)


def test_a_project_is_its_manifest(store: Store) -> None:
    first = federation.project(store)
    assert store.add_project(manifests.build(), "bob") == first
    assert first.manifest == manifests.build()
    assert store.project(first.hash) == store.project("heart") == first
    second = federation.project(store, purpose="another")
    with pytest.raises(Conflict, match=second.hash):
        store.project("heart")
    with pytest.raises(NotFound):
        store.project("liver")
    assert {found.hash for found in store.projects()} == {first.hash, second.hash}
    store.add_package("a" * 64, 10)
    store.add_package("a" * 64, 10)
    assert store.has_package("a" * 64)
    assert not store.has_package("b" * 64)


def test_the_newest_grant_counts_until_it_is_revoked(store: Store) -> None:
    project = federation.project(store)

    def grant(start: int) -> Grant:
        return Grant(manifest=project.hash, site="lille", not_before=start, expires=100, dataset="heart", vouched={})

    def revocation(time: int) -> Revocation:
        return Revocation(manifest=project.hash, site="lille", time=time)

    assert store.grants(project.hash) == {}
    assert store.put_grant(grant(10)).in_force(11)
    assert store.put_grant(grant(10)).in_force(11)
    with pytest.raises(Conflict):
        store.put_grant(grant(9))
    revoked = store.put_revocation(revocation(20))
    assert (revoked.revoked, revoked.in_force(21)) == (True, False)
    with pytest.raises(Conflict):
        store.put_grant(grant(20))
    assert store.put_grant(grant(21)).in_force(22)
    assert not store.put_revocation(revocation(15)).revoked
    row = store.grants(project.hash)["lille"]
    assert (row.grant, row.revocation, row.in_force(100)) == (grant(21), revocation(20), False)
    with pytest.raises(NotFound):
        store.put_grant(grant(30).model_copy(update={"manifest": "0" * 64}))


def test_events_chain_from_the_manifest(store: Store) -> None:
    run = federation.running(store)
    event = store.append_event("run001", "note", {"loss": 0.1, "big": 2**60, "sites": ("a", "b")})
    assert event.data == {"loss": "0.1", "big": str(2**60), "sites": ["a", "b"]}
    events = store.events("run001")
    assert events[-1] == event
    assert events[0].previous == run.project
    assert store.events("run001", after=1, limit=1) == events[1:2]
    assert store.head("run001") == event.hash
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.append_event("run001", "note", {"number": number}), range(24)))
    assert store.verify_chain("run001") == len(events) + 24
    for unknown in (store.head, store.verify_chain, store.run):
        with pytest.raises(NotFound):
            unknown("run999")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET data = replace(data, 'lille', 'lyons') WHERE seq = 3",
        "UPDATE events SET data = '' WHERE seq = 2",
        "UPDATE events SET time = time + 1 WHERE seq = 1",
        "UPDATE events SET kind = 'run.failed' WHERE seq = 2",
        "UPDATE events SET seq = 100 WHERE seq = 4",
        "DELETE FROM events WHERE seq = 2",
        "DELETE FROM events WHERE seq = 4",
        "DELETE FROM events",
        "UPDATE chains SET head = project",
    ],
)
def test_a_tampered_chain_is_found(store: Store, raw: sa.Engine, change: str) -> None:
    federation.running(store)
    store.append_event("run001", "note", {"site": "lille"})
    store.append_event("run001", "note", {"site": "lyon"})
    assert store.verify_chain("run001") == 4
    with raw.begin() as connection:
        assert connection.execute(sa.text(change)).rowcount > 0
    with pytest.raises(Untrusted):
        store.verify_chain("run001")


def test_other_databases_are_refused_without_their_password(tmp_path: Path) -> None:
    for url in ("mysql://ada:hunter2@host/db", "hunter2", "sqlite://"):  # pragma: allowlist secret
        with pytest.raises(Invalid) as caught:
            Store(url)
        assert "hunter2" not in str(caught.value)
