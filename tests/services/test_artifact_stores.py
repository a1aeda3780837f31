"""What every artifact store does, on a directory and on a real MinIO server."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from koinon.artifacts import sealing, stores
from koinon.artifacts.sealing import Sealed
from koinon.artifacts.stores import ArtifactStore
from koinon.domain.errors import Forbidden, Invalid, NotFound, Unavailable, Untrusted
from tests.services import minio
from tests.unit.artifacts import plaintexts
from tests.unit.artifacts.plaintexts import BERLIN, HUB, PLAIN

ABSENT = "0" * 64
LARGE = (PLAIN * 19)[: 40 * 2**20]  # three parts of a multipart upload


class Place(Protocol):
    """A store and what can happen to it."""

    def open(self) -> ArtifactStore: ...
    def lose(self) -> None: ...
    def restore(self) -> None: ...
    def raw(self) -> dict[str, bytes]:
        """All that is stored, in whatever form: name of file → bytes."""
        ...


@dataclass
class Directory:
    root: Path

    def open(self) -> ArtifactStore:
        return stores.from_url((self.root / "artifacts").as_uri())

    def lose(self) -> None:
        (self.root / "artifacts").rename(self.root / "unmounted")

    def restore(self) -> None:
        (self.root / "unmounted").rename(self.root / "artifacts")

    def raw(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}


@dataclass
class Bucket:
    server: minio.Server
    name: str
    data: Path

    def open(self) -> ArtifactStore:
        return stores.from_url(self.server.url(self.name), self.server.environment())

    def lose(self) -> None:
        self.server.kill()

    def restore(self) -> None:
        self.server.start()

    def raw(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in (self.data / self.name).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[minio.Server]:
    folder = tmp_path_factory.mktemp("minio")
    with minio.running(folder) as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "directory":
        return Directory(tmp_path / "store")
    server: minio.Server = request.getfixturevalue("server")
    name = "koinon-" + hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    return Bucket(server, name, server.folder / "data")


@pytest.fixture
def store(place: Place) -> ArtifactStore:
    return place.open()


def read(store: ArtifactStore, name: str, **window: int) -> bytes:
    with store.open(name, **window) as stream:
        return stream.read()


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("plain", [b"", PLAIN, LARGE], ids=["empty", "small", "multipart"])
def test_what_is_put_comes_back_and_opens(store: ArtifactStore, tmp_path: Path, plain: bytes) -> None:
    sealed = plaintexts.sealed(tmp_path, plain)
    assert not store.exists(sealed.name)
    assert store.put(sealed) == sealed.name
    assert store.exists(sealed.name)
    assert store.size(sealed.name) == sealed.size
    assert read(store, sealed.name) == sealed.path.read_bytes()
    expected = plaintexts.expected(plain)
    with store.open(sealed.name) as stream:
        assert sealing.open_bytes(stream, BERLIN, signer=HUB.public, expected=expected) == plain
    stores.fetch(store, sealed.name, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == sealed.path.read_bytes()


def test_a_repeated_put_changes_nothing(place: Place, store: ArtifactStore, tmp_path: Path) -> None:
    sealed = plaintexts.sealed(tmp_path)
    store.put(sealed)
    store.put(sealed)
    assert list(place.open().names()) == [sealed.name]
    assert read(place.open(), sealed.name) == sealed.path.read_bytes()


def test_many_are_listed_and_each_is_deleted_once(store: ArtifactStore, tmp_path: Path) -> None:
    names = {store.put(plaintexts.sealed(tmp_path, round=number)) for number in range(5)}
    assert set(store.names()) == names
    gone = names.pop()
    store.delete(gone)
    store.delete(gone)
    assert set(store.names()) == names
    assert not store.exists(gone)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 10), (5, 0), (7, None), (2**20, 2**20), (10**9, None), (10**9, 10), (100, 10**9), (0, None)],
)
def test_any_range_can_be_read(store: ArtifactStore, tmp_path: Path, offset: int, length: int | None) -> None:
    sealed = plaintexts.sealed(tmp_path)
    name, text = store.put(sealed), sealed.path.read_bytes()
    with store.open(name, offset=offset, length=length) as stream:
        assert stream.read() == text[offset:][:length]


def test_a_range_is_not_negative(store: ArtifactStore, tmp_path: Path) -> None:
    name = store.put(plaintexts.sealed(tmp_path))
    with pytest.raises(Invalid, match="negative"):
        store.open(name, offset=-1)
    with pytest.raises(Invalid, match="negative"):
        store.open(name, length=-1)


def test_what_is_absent_is_not_found(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.size(ABSENT)
    for length in (None, 0, 10):
        with pytest.raises(NotFound):
            store.open(ABSENT, length=length)
    with pytest.raises(NotFound):
        stores.fetch(store, ABSENT, tmp_path / "fetched")
    assert files(tmp_path) == [name for name in files(tmp_path) if name == "store"]
    store.delete(ABSENT)


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "\n"])
def test_a_name_is_a_hash(store: ArtifactStore, name: str) -> None:
    calls: list[Callable[[str], object]] = [store.open, store.size, store.exists, store.delete]
    for call in calls:
        with pytest.raises(Invalid, match="64 hex digits"):
            call(name)


@pytest.mark.parametrize("thing", [b"bytes", Path("/etc/hostname"), None])
def test_only_a_sealed_is_taken(place: Place, store: ArtifactStore, thing: object) -> None:
    with pytest.raises(TypeError, match="Only a Sealed"):
        store.put(thing)  # type: ignore[arg-type]
    assert not place.raw()


def test_no_look_alike_of_a_sealed_is_taken(store: ArtifactStore, tmp_path: Path) -> None:
    class Forged(Sealed):
        pass

    forged = object.__new__(Forged)
    forged.__dict__.update(plaintexts.sealed(tmp_path).__dict__)
    with pytest.raises(TypeError, match="Only a Sealed"):
        store.put(forged)


@pytest.mark.parametrize("plain", [PLAIN, LARGE], ids=["small", "multipart"])
def test_a_sealed_file_that_changed_is_refused_whole(
    place: Place, store: ArtifactStore, tmp_path: Path, plain: bytes
) -> None:
    sealed = plaintexts.sealed(tmp_path, plain)
    text = bytearray(sealed.path.read_bytes())
    text[-1] ^= 1
    for changed in (bytes(text), plain, bytes(text[:-1]), sealed.path.read_bytes() + b"x"):
        sealed.path.write_bytes(changed)
        with pytest.raises((Untrusted, Invalid)):
            store.put(sealed)
    assert not store.exists(sealed.name)
    assert list(store.names()) == []
    assert not [name for name, kept in place.raw().items() if plain[:64] in kept]


def test_nothing_readable_is_stored(place: Place, store: ArtifactStore, tmp_path: Path) -> None:
    store.put(plaintexts.sealed(tmp_path))
    stored = place.raw()
    assert sum(len(text) for text in stored.values()) > len(PLAIN)
    assert not any(PLAIN[at : at + 32] in text for text in stored.values() for at in range(0, len(PLAIN), 2**18))


def test_a_store_that_went_away_is_unavailable_and_works_once_it_is_back(
    place: Place, store: ArtifactStore, tmp_path: Path
) -> None:
    first = plaintexts.sealed(tmp_path)
    store.put(first)
    (tmp_path / "second").mkdir()
    second = plaintexts.sealed(tmp_path / "second", round=4)
    place.lose()
    calls: list[Callable[[], object]] = [
        lambda: store.put(second),
        lambda: store.open(first.name),
        lambda: store.size(first.name),
        lambda: store.exists(first.name),
        lambda: store.delete(first.name),
        lambda: list(store.names()),
        store.check,
    ]
    try:
        for call in calls:
            with pytest.raises(Unavailable):
                call()
    finally:
        place.restore()
    store.check()
    assert read(store, first.name) == first.path.read_bytes()
    assert store.put(second) == second.name


def test_a_download_that_is_cut_is_unavailable_and_never_short(server: minio.Server, tmp_path: Path) -> None:
    store = stores.from_url(server.url("koinon-cut"), server.environment())
    sealed = plaintexts.sealed(tmp_path, LARGE)
    store.put(sealed)
    with store.open(sealed.name) as stream:
        stream.read(100)
        server.kill()
        try:
            with pytest.raises(Unavailable):
                stream.read()
        finally:
            server.start()


def test_wrong_credentials_are_said_as_such(server: minio.Server) -> None:
    for change in ({"KOINON_S3_ACCESS_KEY": "nobody"}, {"KOINON_S3_SECRET_KEY": "wrong-secret"}):
        with pytest.raises(Forbidden, match="KOINON_S3_SECRET_KEY") as caught:
            stores.from_url(server.url("koinon-cut"), server.environment() | change)
        assert not any(secret in str(caught.value) for secret in (server.secret_key, "wrong-secret"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://127.0.0.1:9/bucket", "credentials are missing"),
        ("s3://key:secret@127.0.0.1:9/bucket", "do not belong"),  # pragma: allowlist secret
        ("s3://127.0.0.1:9", "no S3 place"),
        ("s3://127.0.0.1:9/bucket/folder", "no S3 place"),
        ("s3://127.0.0.1:9/bucket?tls=maybe", "no S3 place"),
        ("https://127.0.0.1/bucket", "no place"),
        ("file://relative", "no place"),
        ("artifacts", "no place"),
    ],
)
def test_a_url_that_is_no_store_is_refused_with_the_right_form(url: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        stores.from_url(url, {})
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_unavailable(server: minio.Server) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        stores.from_url("s3://127.0.0.1:9/bucket?tls=no", server.environment())
