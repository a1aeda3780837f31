"""What the spool takes, what it refuses, and that nothing changes between its check and the fold."""

from pathlib import Path

import blake3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koinon.aggregation import spool
from koinon.aggregation.spool import Spool, Upload
from koinon.artifacts import files
from koinon.domain.errors import Conflict, Invalid, TooLarge, Unavailable, Untrusted

PART = 64
BODY = bytes(range(150))  # two whole parts and 22 bytes
ROOT = blake3.blake3(BODY).hexdigest()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "PART_BYTES", PART)


@pytest.fixture
def uploads(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def upload(site: str = "berlin", size: int = len(BODY), exact: bool = True) -> Upload:
    return Upload("run001", 2, 1, site, size, exact)


def cut(part: spool.Part) -> None:
    part.write(BODY[:30])
    raise ConnectionError


def send(to: Spool, which: Upload, index: int, body: bytes = BODY) -> None:
    with to.part(which, index) as part:
        part.write(body[index * PART : (index + 1) * PART])


@given(
    size=st.integers(1, 300),
    order=st.randoms(use_true_random=False),
    chunk=st.integers(1, 100),
    twice=st.booleans(),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_in_any_order_and_repeated_come_out_as_they_were_sent(
    size: int, order: object, chunk: int, twice: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    to, which, body = Spool(tmp_path_factory.mktemp("spool")), upload(size=size), bytes(i % 251 for i in range(size))
    indices = list(range(which.count())) * (2 if twice else 1)
    order.shuffle(indices)  # type: ignore[attr-defined]
    for index in indices:
        text = body[index * PART : (index + 1) * PART]
        with to.part(which, index) as part:
            for start in range(0, len(text), chunk):
                part.write(text[start : start + chunk])
    paths = to.verify(which, blake3.blake3(body).hexdigest())
    assert b"".join(path.read_bytes() for path in paths) == body


def test_an_upload_resumes_where_it_was_cut(uploads: Spool, tmp_path: Path) -> None:
    send(uploads, upload(), 1)
    with pytest.raises(ConnectionError), uploads.part(upload(), 0) as part:
        cut(part)
    again = Spool(tmp_path)  # the hub was killed meanwhile
    assert again.parts(upload()) == {1: PART}
    with pytest.raises(Invalid, match="lacks 2 of 3 parts, first 0"):
        again.verify(upload(), ROOT)
    send(again, upload(), 0)
    send(again, upload(), 2)
    assert again.parts(upload()) == {0: 64, 1: 64, 2: 22}
    assert len(again.verify(upload(), ROOT)) == 3


def test_a_truncated_part_does_not_count(uploads: Spool) -> None:
    for body in (b"", BODY[:63]):
        with pytest.raises(Invalid, match=f"ends after {len(body)} of 64 bytes"), uploads.part(upload(), 0) as part:
            part.write(body)
    assert uploads.parts(upload()) == {}


def test_a_part_shortened_by_a_loss_of_power_does_not_count(uploads: Spool, tmp_path: Path) -> None:
    for index in range(3):
        send(uploads, upload(), index)
    next(tmp_path.rglob("00001")).write_bytes(b"")
    assert uploads.parts(upload()) == {0: 64, 2: 22}


@pytest.mark.parametrize(("index", "most"), [(0, 64), (2, 22)])
def test_an_oversize_part_is_stopped_at_its_first_byte_too_many(uploads: Spool, index: int, most: int) -> None:
    with uploads.part(upload(), index) as part:
        part.write(bytes(most))
        with pytest.raises(TooLarge, match=f"larger than its {most} bytes"):
            part.write(b"x")
    with pytest.raises(TooLarge), uploads.part(upload(), index) as part:
        part.write(bytes(most + 1))
    assert uploads.parts(upload()) == {index: most}


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_a_part_beyond_the_upload_is_refused(uploads: Spool, index: int) -> None:
    with pytest.raises(Invalid, match="this upload has 3"), uploads.part(upload(), index):
        pass


def test_bytes_without_their_root_are_dropped_and_can_be_sent_again(uploads: Spool) -> None:
    wrong = bytes([BODY[0] ^ 1]) + BODY[1:]
    for index in range(3):
        send(uploads, upload(), index, wrong)
    with pytest.raises(Untrusted, match="berlin"):
        uploads.verify(upload(), ROOT)
    assert uploads.parts(upload()) == {}
    for index in range(3):
        send(uploads, upload(), index)
    uploads.verify(upload(), ROOT)


def test_nothing_changes_once_the_check_began(uploads: Spool) -> None:
    for index in range(3):
        send(uploads, upload(), index)
    late = uploads.part(upload(), 0)
    late.__enter__().write(bytes(PART))  # begun before the check, ends after it
    paths = uploads.verify(upload(), ROOT)
    with pytest.raises(Conflict, match="complete"):
        late.__exit__(None, None, None)
    with pytest.raises(Conflict, match="complete"):
        send(uploads, upload(), 0, bytes(PART))
    assert b"".join(path.read_bytes() for path in paths) == BODY
    assert uploads.verify(upload(), ROOT) == paths  # a hub that was killed before the fold asks again
    assert uploads.parts(upload()) == {0: 64, 1: 64, 2: 22}


def test_what_lies_on_disk_is_hashed_again_after_a_crash(uploads: Spool) -> None:
    for index in range(3):
        send(uploads, upload(), index)
    uploads.verify(upload(), ROOT)[1].write_bytes(bytes(PART))
    with pytest.raises(Untrusted):
        uploads.verify(upload(), ROOT)


def test_sites_and_attempts_do_not_touch_each_other(uploads: Spool, tmp_path: Path) -> None:
    others = [upload("paris"), Upload("run001", 2, 2, "berlin", 150), Upload("run002", 2, 1, "berlin", 150)]
    for which in [upload(), *others]:
        send(uploads, which, 0)
    uploads.remove(upload())
    assert [uploads.parts(which) for which in [upload(), *others]] == [{}, {0: 64}, {0: 64}, {0: 64}]
    uploads.remove_attempt("run001", 2, 1)
    assert [uploads.parts(which) for which in others] == [{}, {0: 64}, {0: 64}]
    uploads.remove_run("run001")
    assert [uploads.parts(which) for which in others] == [{}, {}, {0: 64}]
    uploads.remove_run("run002")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["..", "a/b", "", "Berlin", "a" * 64])
def test_no_name_leaves_the_spool(uploads: Spool, name: str) -> None:
    for which in (Upload("run001", 1, 1, name, 10), Upload(name, 1, 1, "berlin", 10)):
        with pytest.raises(Invalid, match="not a name"):
            uploads.parts(which)


def test_first_weights_of_unknown_size_are_gathered(uploads: Spool, tmp_path: Path) -> None:
    which = upload(size=1_000, exact=False)
    send(uploads, which, 2)
    with pytest.raises(Invalid, match="lacks parts"):
        uploads.gather(which, tmp_path / "init")
    send(uploads, which, 0)
    send(uploads, which, 1)
    uploads.gather(which, tmp_path / "init")
    assert (tmp_path / "init").read_bytes() == BODY


def test_a_nearly_full_disk_is_said_before_the_first_byte(uploads: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "RESERVE", 2**62)
    with pytest.raises(Unavailable, match="disk is full"), uploads.part(upload(), 0):
        pytest.fail("nothing may be written")
    assert uploads.parts(upload()) == {}


def test_a_disk_that_fills_up_meanwhile_is_the_same_clear_error() -> None:
    with pytest.raises(Unavailable, match="disk is full"), files.room(), Path("/dev/full").open("wb", 0) as full:
        full.write(b"x")
