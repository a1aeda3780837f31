"""What the store promises when processes are killed, the database goes away, or two hubs want it."""

import os
import random
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from koinon.domain.errors import Conflict, Invalid, KoinonError, NotFound, Unavailable, Untrusted
from koinon.domain.run import Kind, Phase, RoundState
from koinon.store import accounts, backup, database
from koinon.store.lock import HubLock
from koinon.store.store import Store
from tests.services import federation, postgres

LATER = federation.LATER
ROOT = Path(__file__).parents[2]


def consistent(store: Store, run: str) -> int:
    """Fails unless rounds, model, metrics, artifacts and chain tell one story. Returns the last committed round."""
    rounds = store.rounds(run)
    assert [found.number for found in rounds] == list(range(len(rounds)))
    states = [found.state for found in rounds]
    assert states[:-1] == [RoundState.COMMITTED] * (len(rounds) - 1)
    done = [found.number for found in rounds if found.state is RoundState.COMMITTED]
    stored = store.run(run)
    newest = done[-1] if done else -1
    assert (stored.version, stored.model_round) == (newest, newest if done else None)
    assert [version for version, _ in store.metrics(run)] == done[:-1]
    assert [found.round for found in store.artifacts(run) if found.kind == "model"] == done
    for number in done:
        attempt = store.attempts(run, number)[-1]
        assert attempt.phase is Phase.DONE
        assert all(not store.messages(run, number, attempt.number, phase) for phase in Phase)
    assert store.verify_chain(run) == len(store.events(run))
    kinds = [event.kind for event in store.events(run)]
    assert (kinds.count("round.opened"), kinds.count("round.committed")) == (len(rounds), len(done))
    return newest


def test_a_writer_killed_at_any_moment_leaves_one_story(store: Store, database_url: str) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    federation.running(store)
    command = [sys.executable, "-m", "tests.services.store_writer", database_url, "run001"]
    told = -1
    for _ in range(6):
        writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        first = writer.stdout.readline()
        assert first.startswith("committed")
        time.sleep(moments.uniform(0, 0.3))
        writer.kill()
        said = first + writer.stdout.read()
        writer.wait()
        writer.stdout.close()
        told = max(told, *(int(number) for number in re.findall(r"committed (\d+)\n", said)))
        newest = consistent(store, "run001")
        assert told <= newest <= told + 1  # what it said is durable; at most one it had no time to say
    with pytest.raises(Conflict, match="taken over"):
        store.set_meta("fence", "the writers acquired it")
    store.acquire()
    federation.whole_round(store, "run001", newest + 1)
    assert consistent(store, "run001") == newest + 1


def test_a_second_hub_takes_over_between_two_writes(store: Store, database_url: str) -> None:
    federation.running(store)
    store.open_round(federation.opening(store, "run001", 0, Kind.INIT), LATER)
    second = Store(database_url)
    with pytest.raises(Conflict, match="not acquired"):
        second.set_meta("before", "acquire")
    second.add_user("ada", accounts.hash_token("t"))  # an operator's command works beside the hub
    refused = threading.Event()

    def write(writer: int) -> None:
        for number in range(100_000):
            try:
                store.put_message("run001", 0, 1, Phase.INIT, f"site{writer}-{number}", b"vote")
            except Conflict:
                refused.set()
                return

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, writer) for writer in range(4)]
        while len(store.messages("run001", 0, 1, Phase.INIT)) < 20:
            pass
        fence = second.acquire()
        after = second.messages("run001", 0, 1, Phase.INIT)
        for writer in writers:
            writer.result()
    assert refused.is_set()
    assert second.messages("run001", 0, 1, Phase.INIT) == after
    assert second.put_message("run001", 0, 1, Phase.INIT, "lille", b"vote")
    assert store.acquire() == fence + 1  # and back, if somebody means it
    federation.refuses(second.set_meta, "key", "value")
    second.close()


def test_postgresql_killed_and_restarted_under_load(postgres_server: postgres.Server, postgres_url: str) -> None:
    store = Store(postgres_url)
    store.migrate()
    store.acquire()
    federation.running(store)
    store.open_round(federation.opening(store, "run001", 0, Kind.INIT), LATER)
    back = threading.Event()
    acknowledged: set[str] = set()
    seen: set[type[KoinonError]] = set()

    def write(writer: int) -> None:
        """Each message is sent until it is acknowledged, as a site does."""
        for number in range(100_000):
            site = f"site{writer}-{number}"
            while True:
                try:
                    store.put_message("run001", 0, 1, Phase.INIT, site, b"vote")
                    break
                except Unavailable as error:
                    seen.add(type(error))
                    assert back.wait(60)
            acknowledged.add(site)
            if back.is_set() and number > 20:
                return

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, writer) for writer in range(4)]
        while len(acknowledged) < 40:
            time.sleep(0.001)
        postgres_server.kill()
        with pytest.raises(Unavailable):
            store.ping()
        postgres_server.start()
        back.set()
        for writer in writers:
            writer.result()
    assert seen == {Unavailable}
    assert set(store.messages("run001", 0, 1, Phase.INIT)) == acknowledged
    store.ping()
    federation.commit(store, "run001", 0, Kind.INIT)
    assert consistent(store, "run001") == 0
    store.close()


def test_an_absent_database_is_unavailable_until_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "mounted-later"
    for url in (f"sqlite:///{folder / 'hub.sqlite'}", f"postgresql://ada@/hub?host={folder}"):
        store = Store(url)
        for call in (store.migrate, store.ping):
            with pytest.raises(Unavailable) as caught:
                call()
            assert "hunter2" not in str(caught.value)
        store.close()
    folder.mkdir()
    store = Store(f"sqlite:///{folder / 'hub.sqlite'}")
    store.migrate()
    store.acquire()
    store.close()
    assert (folder / "hub.sqlite").stat().st_mode & 0o777 == 0o600


def test_backup_and_restore(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    store = Store(url)
    store.migrate()
    store.acquire()
    federation.running(store)
    for number in range(3):
        federation.whole_round(store, "run001", number)
    copy = tmp_path / "copy.sqlite"
    writing = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def go_on() -> None:
            for number in range(3, 12):
                federation.whole_round(store, "run001", number)
                writing.set()

        ahead = pool.submit(go_on)
        writing.wait()
        backup.backup(url, copy)
        ahead.result()
    with pytest.raises(Conflict):
        backup.backup(url, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.glob("copy*")} == {"copy.sqlite"}
    assert store.run("run001").version == 11
    store.close()
    backup.restore(url, copy)
    assert not list(tmp_path.glob("*.restore*"))
    restored = Store(url)
    with pytest.raises(Conflict):  # the fence of the process before the restore is void
        store.set_meta("key", "value")
    restored.acquire()
    newest = consistent(restored, "run001")
    assert 3 <= newest < 11
    federation.whole_round(restored, "run001", newest + 1)
    assert consistent(restored, "run001") == newest + 1
    restored.close()
    store.close()


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        ("UPDATE events SET data = '{}' WHERE seq = 2", Untrusted),
        ("DROP TABLE alembic_version", Invalid),
        ("UPDATE alembic_version SET version_num = '9999'", Conflict),
        ("INSERT INTO metrics VALUES ('no run', 1, '{}')", Invalid),
        (None, Invalid),
    ],
)
def test_a_bad_copy_is_not_restored(tmp_path: Path, damage: str | None, error: type[KoinonError]) -> None:
    url = f"sqlite:///{tmp_path / 'hub.sqlite'}"
    store = Store(url)
    store.migrate()
    store.acquire()
    federation.running(store)
    copy = tmp_path / "copy.sqlite"
    backup.backup(url, copy)
    if damage:
        engine = sa.create_engine(f"sqlite:///{copy}")
        with engine.begin() as connection:
            connection.execute(sa.text(damage))
        engine.dispose()
    else:
        content = bytearray(copy.read_bytes())
        content[8192:40960] = os.urandom(32768)
        copy.write_bytes(content)
    store.append_event("run001", "note", {})
    with pytest.raises(error):
        backup.restore(url, copy)
    with pytest.raises(NotFound):
        backup.restore(url, tmp_path / "absent.sqlite")
    assert not list(tmp_path.glob("*.restore*"))
    assert store.verify_chain("run001") == 3
    store.set_meta("still", "mine")
    store.close()


def test_only_sqlite_is_copied(postgres_url: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="pg_dump"):
        backup.backup(postgres_url, tmp_path / "copy.sqlite")
    with pytest.raises(Invalid, match="pg_dump"):
        backup.restore(postgres_url, tmp_path / "copy.sqlite")


HOLD = """
import sys
from pathlib import Path
from koinon.domain.errors import Conflict
from koinon.store.lock import HubLock
try:
    with HubLock(Path(sys.argv[1])):
        print("holds", flush=True)
        sys.stdin.read()
except Conflict as error:
    sys.exit(f"error: {error}")
"""


def test_a_second_hub_process_exits_with_one_clear_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "holds\n"
        second = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert second.stdout == ""
        assert second.stderr.splitlines() == [
            f"error: {tmp_path}: Another hub (process {first.pid}) uses this folder. "
            "Stop it first, or give this one its own folder."
        ]
        assert (tmp_path / "lock").read_text() == f"{first.pid}\n"
        first.kill()
    with HubLock(tmp_path), pytest.raises(Conflict), HubLock(tmp_path):
        pass
    with HubLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_no_parameter_shows_in_an_error(store: Store, database_url: str) -> None:
    engine = sa.create_engine(database.parse_url(database_url))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE meta"))
    engine.dispose()
    with pytest.raises((Unavailable, sa.exc.DBAPIError)) as caught:
        store.set_meta("key", "hunter2")
    assert "hunter2" not in str(caught.value)
