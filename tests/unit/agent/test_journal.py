"""The journal and its marker: what was promised survives a kill at any write, and a restored backup is noticed."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from koinon.agent.journal import Journal
from koinon.agent.marker import Mark, Marker
from koinon.agent.records import Control, Update
from koinon.domain.errors import Conflict, Invalid, Unavailable
from koinon.domain.run import Kind, Phase
from tests.unit.agent.openings import opening
from tests.unit.domain import manifests

MANIFEST = manifests.build()
NAME = MANIFEST.digest()


def open_journal(folder: Path) -> Journal:
    return Journal(folder / "agent", Marker(folder / "marker"))


def take_part(
    journal: Journal, number: int, attempt: int = 1, *, release: bool = True, update: Update | None = None
) -> None:
    task = opening(MANIFEST, round=number, attempt=attempt)
    journal.join(task, f"secret-{number}-{attempt}", Phase.KEYS, b"keys", update=update)
    journal.step(task, f"shared-{number}", Phase.SHARES, b"shares")
    if release:
        journal.step(task, f"released-{number}", Phase.UNMASK, b"release", latch=True)


def test_a_step_and_its_message_are_there_after_reopening(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    take_part(journal, 1)
    journal.close()
    again = open_journal(tmp_path)
    task = opening(MANIFEST)
    assert not again.restored
    assert again.state("run000") == "released-1"
    assert [again.message(task, phase) for phase in (Phase.KEYS, Phase.UNMASK)] == [b"keys", b"release"]
    known = again.known("run000")
    assert known is not None
    assert known.attempts == {(1, 1): task.digest()}
    again.close()


def test_two_agents_cannot_share_a_journal(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(Conflict, match="Another agent"):
        open_journal(tmp_path)
    journal.close()


def test_a_newer_attempt_erases_the_older_ones_secrets_from_the_disk(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    take_part(journal, 1, release=False)
    assert b"shared-1" in _bytes(tmp_path)
    journal.join(opening(MANIFEST, attempt=2), "state-two", Phase.KEYS, b"keys-two", erase=True)
    assert b"shared-1" not in _bytes(tmp_path)
    assert b"secret-1-1" not in _bytes(tmp_path)
    assert journal.message(opening(MANIFEST), Phase.SHARES) is None
    journal.close()


def test_after_a_run_no_secret_remains(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    update = Update("basis", {"update-1.f32": "ab"}, {"words": {"rows": [3.0]}})
    take_part(journal, 1, update=update)
    assert journal.unerased() == ["run000"]
    journal.erase("run000", "latch")
    assert journal.unerased() == []
    assert journal.state("run000") == "latch"
    for secret in (b"secret-1", b"shared-1", b"released-1", b"update-1.f32"):
        assert secret not in _bytes(tmp_path)
    journal.close()


def test_a_round_is_trained_once_and_counted_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    update = Update("basis", {"update-1.f32": "ab"}, {"weight": 3})
    take_part(journal, 1, update=update)
    assert journal.update("run000", 1) == update
    with pytest.raises(Conflict, match="trained already"):
        take_part(journal, 1, 2, update=Update("other", {}, {}))
    assert journal.update("run000", 1) == update
    take_part(journal, 1, 2)
    take_part(journal, 2)
    counts = journal.counts(NAME, "run000", 2)
    assert (counts.rounds, counts.counted) == (2, True)
    assert journal.counts("0" * 64, "run000", 2).rounds == 0
    assert (counts.releases, counts.released) == (1, True)  # from the first round on
    evaluation = opening(MANIFEST, round=3, kind=Kind.EVALUATE)
    journal.join(evaluation, "state", Phase.KEYS, b"keys")
    assert journal.counts(NAME, "run111", 1).releases == 1
    assert not journal.counts(NAME, "run111", 1).released
    assert [journal.counts(NAME, "run000", number).scored for number in (3, 4)] == [0, 1]
    journal.close()


def test_first_weights_are_counted_apart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    first = opening(MANIFEST, round=0, kind=Kind.INIT, model=None, base=None)
    journal.join(first, None, Phase.INIT, b"vote")
    counts = journal.counts(NAME, "run000", 0)
    assert (counts.inits, counts.rounds, counts.releases, counts.counted) == (1, 0, 0, True)
    assert not journal.counts(NAME, "run111", 0).counted
    assert journal.project("run000") == NAME
    journal.close()


def test_troubles_of_a_run_are_counted_over_restarts(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    assert [journal.count_trouble("run000") for _ in range(2)] == [1, 2]
    journal.close()
    again = open_journal(tmp_path)
    assert (again.count_trouble("run000"), again.count_trouble("run111")) == (3, 1)
    again.close()


def test_control_variates_are_remembered(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    assert journal.control("run000") == Control()
    journal.put_control("run000", Control("control-1.f32", 2, "control-2.f32"))
    assert journal.control("run000").pending == 2
    journal.close()


def test_a_restored_journal_starts_a_new_epoch_and_refuses_what_was_open(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    take_part(journal, 1)
    journal.close()
    shutil.copytree(tmp_path / "agent", tmp_path / "backup")
    journal = open_journal(tmp_path)
    take_part(journal, 2)
    take_part(journal, 3)
    journal.close()
    shutil.rmtree(tmp_path / "agent")
    shutil.copytree(tmp_path / "backup", tmp_path / "agent")
    restored = open_journal(tmp_path)
    assert restored.restored
    assert restored.epoch == 2
    assert restored.floor("run000") == 3
    assert restored.floor("run111") == -1
    assert restored.state("run000") is None
    assert restored.message(opening(MANIFEST), Phase.UNMASK) is None
    take_part(restored, 4)
    restored.close()
    again = open_journal(tmp_path)
    assert not again.restored
    assert (again.epoch, again.floor("run000")) == (2, 3)
    again.close()


def test_a_lost_journal_is_behind_its_marker_too(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    take_part(journal, 7)
    journal.close()
    shutil.rmtree(tmp_path / "agent")
    fresh = open_journal(tmp_path)
    assert fresh.restored
    assert fresh.floor("run000") == 7
    fresh.close()


def test_a_damaged_marker_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    for slot in (tmp_path / "marker").iterdir():
        slot.write_text("{")
    with pytest.raises(Invalid, match="marker"):
        open_journal(tmp_path)


def test_nothing_leaves_before_the_marker_is_written(tmp_path: Path) -> None:
    full = False

    def write(path: Path, data: bytes) -> None:
        if full:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    journal = Journal(tmp_path / "agent", Marker(tmp_path / "marker", write))
    task = opening(MANIFEST)
    journal.join(task, "state", Phase.KEYS, b"keys")
    full = True
    with pytest.raises(OSError, match="No space"):
        journal.step(task, "released", Phase.UNMASK, b"release", latch=True)
    with pytest.raises(OSError, match="No space"):
        journal.message(task, Phase.UNMASK)
    full = False
    assert journal.message(task, Phase.UNMASK) == b"release"
    written = Marker(tmp_path / "marker").read()
    assert written == Mark(1, 1, {"run000": 1})
    journal.close()


def test_a_journal_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    take_part(journal, 1, release=False)
    journal._db.execute("PRAGMA max_page_count = 1")  # as a full disk: no page can be added
    with pytest.raises(Unavailable, match="journal"):
        journal.step(opening(MANIFEST), "x" * 200_000, Phase.MASKED, b"m" * 200_000)
    assert journal.state("run000") == "shared-1"
    journal.close()


# One child grows many: each lives until its n-th write and is killed there, between statements of a transaction, around
# the marker, and halfway through writing it. It prints a round's number when the round's release may leave.
CHILD = """
import os, signal, sys
from pathlib import Path
from tests.unit.agent.test_journal import MANIFEST, take_part
from koinon.agent import journal, marker

def live(folder, left):
    def tick():
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def write(path, data):
        tick(); path.write_bytes(data[: len(data) // 2]); tick(); marker._overwrite(path, data); tick()
    j = journal.Journal(folder / "agent", marker.Marker(folder / "marker", write))
    j._db.set_trace_callback(lambda statement: tick() if not statement.startswith("SELECT") else None)
    for number in (1, 2, 3):
        take_part(j, number)
        print(folder.name, number, flush=True)

at, killed = 0, True
while killed:
    pid = os.fork()
    if pid == 0:
        live(Path(sys.argv[1]) / str(at), at)
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    at += 1
"""


def test_killed_at_every_write_the_journal_keeps_what_it_promised(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr
    promised: dict[str, int] = {}
    for line in done.stdout.splitlines():
        name, number = line.split()
        promised[name] = int(number)
    folders = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(folders) > 50, "the child was killed at many places"
    assert promised[folders[-1].name] == 3, "the last one was not killed"
    for folder in folders:
        _sound(folder)
        last = promised.get(folder.name, 0)
        mark = Marker(folder / "marker").read() if last else None
        assert last == 0 or (mark is not None and mark.rounds["run000"] >= last), "the latch was in the second place"
        journal = open_journal(folder)
        assert not journal.restored, "a crash is not a restore"
        known = journal.known("run000")
        assert last == 0 or (known is not None and (last, 1) in known.attempts)
        if last and known and known.newest == last:
            assert journal.state("run000") == f"released-{last}"
            assert journal.message(opening(MANIFEST, round=last), Phase.UNMASK) == b"release"
        journal.close()


def _sound(folder: Path) -> None:
    with sqlite3.connect(folder / "agent" / "journal.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def _bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((folder / "agent").iterdir()))


def test_the_marker_forgets_only_the_runs_that_rested_longest() -> None:
    mark = Mark(rounds={f"run{index:06d}": 1 for index in range(10_000)})
    mark = mark.joined("run000000", 2).joined("fresh0", 1)
    assert len(mark.rounds) == 10_000
    assert "run000001" not in mark.rounds
    assert mark.rounds["run000000"] == 2
    assert mark.joined("fresh0", 0).rounds["fresh0"] == 1, "an older round does not lower the mark"
