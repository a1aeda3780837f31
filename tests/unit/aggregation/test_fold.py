"""The folded sum equals the plain sum, is named by its bytes, survives a crash, and costs no memory."""

import subprocess
import sys
from pathlib import Path

import blake3
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koinon.aggregation import fold
from koinon.aggregation.fold import Accumulator
from koinon.domain.errors import Invalid, NotFound, Untrusted

PART = 64


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 64 bytes and blocks of 16, so that small vectors cross all borders."""
    monkeypatch.setattr(fold, "PART_BYTES", PART)
    monkeypatch.setattr(fold, "BLOCK", 16)


def write(folder: Path, vector: fold.Words) -> tuple[Path, ...]:
    """`vector` as the parts of a verified upload."""
    folder.mkdir()
    text, paths = vector.astype("<u4").tobytes(), []
    for index in range(0, len(text), PART):
        paths.append(folder / f"{index // PART:05d}")
        paths[-1].write_bytes(text[index : index + PART])
    return tuple(paths)


def vectors(count: int, words: int, seed: int) -> list[fold.Words]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 2**32, words, dtype=np.uint32) for _ in range(count)]


@given(words=st.integers(1, 70), seed=st.integers(0, 2**32 - 1), batches=st.lists(st.integers(0, 4), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_batches_give_the_sum_modulo_2_to_the_32(
    words: int, seed: int, batches: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("fold")
    plain = vectors(sum(batches), words, seed)
    uploads = [write(root / f"site-{i}", vector) for i, vector in enumerate(plain)]
    sums, name, done = Accumulator(root / "sums", words), None, 0
    for count in batches:
        name = sums.fold(name, uploads[done : done + count])
        done += count
    expected = np.zeros(words, np.uint64)
    for vector in plain:
        expected += vector
    name = name or sums.fold(None, [])
    np.testing.assert_array_equal(sums.load(name), (expected % 2**32).astype(np.uint32))
    assert sums.fold(None, uploads) == name == blake3.blake3((expected % 2**32).astype("<u4").tobytes()).hexdigest()


def test_a_fold_leaves_its_base_until_told_which_to_keep(tmp_path: Path) -> None:
    first, second = (write(tmp_path / str(i), v) for i, v in enumerate(vectors(2, 40, 1)))
    sums = Accumulator(tmp_path / "sums", 40)
    base = sums.fold(None, [first])
    name = sums.fold(base, [second])
    (tmp_path / "sums" / "draft").write_bytes(b"left by a crash" * 100)
    assert sums.fold(base, [second]) == name  # the transaction was lost: the same batch again
    sums.keep(name)
    assert sorted(path.name for path in (tmp_path / "sums").iterdir()) == sorted([name, "draft"])
    with pytest.raises(NotFound):
        sums.load(base)
    with pytest.raises(NotFound):
        sums.fold(base, [second])


def test_the_file_of_an_obsolete_sum_takes_the_next_one(tmp_path: Path) -> None:
    """Written over whole, and cut if the next vector is shorter."""
    long, short = write(tmp_path / "a", vectors(1, 60, 1)[0]), write(tmp_path / "b", vectors(1, 40, 2)[0])
    sums = Accumulator(tmp_path / "sums", 60)
    file = (tmp_path / "sums" / sums.fold(None, [long])).stat().st_ino
    sums.keep(None)
    sums = Accumulator(tmp_path / "sums", 40)
    name = sums.fold(None, [short])
    assert (tmp_path / "sums" / name).stat().st_ino == file
    np.testing.assert_array_equal(sums.load(name), vectors(1, 40, 2)[0])


def test_an_upload_of_another_size_is_refused(tmp_path: Path) -> None:
    for words in (39, 41):
        parts = write(tmp_path / str(words), vectors(1, words, 1)[0])
        with pytest.raises(Invalid, match="another size"):
            Accumulator(tmp_path / "sums", 40).fold(None, [parts])
    assert not list((tmp_path / "sums").iterdir())


def test_a_damaged_sum_is_not_loaded(tmp_path: Path) -> None:
    sums = Accumulator(tmp_path / "sums", 40)
    name = sums.fold(None, [write(tmp_path / "site", vectors(1, 40, 1)[0])])
    path = tmp_path / "sums" / name
    text = bytearray(path.read_bytes())
    text[17] ^= 1
    path.write_bytes(text)
    with pytest.raises(Untrusted, match="damaged"):
        sums.load(name)
    path.write_bytes(text[:-4])
    with pytest.raises(Untrusted, match="size"):
        sums.load(name)


MEASURE = """
import sys
from pathlib import Path
import numpy as np
from koinon.aggregation.fold import Accumulator
from koinon.aggregation.spool import Spool, Upload
import blake3

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

root, words, sites = Path(sys.argv[1]), 2**25, 3
spool, sums = Spool(root), Accumulator(root / "sums", words)
block, name = b"\\1" * 2**20, None
hasher = blake3.blake3()
for _ in range(words * 4 // len(block)):
    hasher.update(block)
before = peak()
for site in range(sites):
    upload = Upload("run000", 1, 1, f"site-{site}", 4 * words)
    for index in range(upload.count()):
        with spool.part(upload, index) as part:
            for _ in range(upload.part_size(index) // len(block)):
                part.write(block)
    name = sums.fold(name, [spool.verify(upload, hasher.hexdigest())])
    spool.remove(upload)
    sums.keep(name)
print(peak() - before)
assert (np.fromfile(root / "sums" / name, "<u4", 100) == 3 * 0x01010101).all()
"""


def test_ingest_costs_less_than_16_mib_for_an_update_of_128_mib(tmp_path: Path) -> None:
    """PROTECTION.md, Ingest: at most 64 MiB beyond one accumulator, whatever n and D. Nothing here is mapped at all."""
    script = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(script, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 16 * 2**20
