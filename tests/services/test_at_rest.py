"""Nothing readable at rest: no file of the hub, no object and no row holds an update, a model or a share in the clear.

The hospitals of this test are in this process, so it knows every value that must not be found, and looks for the bytes
of each in every encoding the code has: while shares are being released and after the run.
"""

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import minio as minio_client
import numpy as np
import pytest
import sqlalchemy as sa

from koinon.domain import canonical, wire
from koinon.domain.run import Kind, Phase
from koinon.protection import ring
from koinon.store import database
from tests.services import hubs, minio
from tests.services.consortium import NAMES, Federation
from tests.services.hospitals import Hospital


def texts(secret: bytes) -> Iterator[bytes]:
    """`secret` as the code could have written it: raw, hex, base64 at each of its three alignments."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for lead in range(3):
        whole = secret[lead : lead + (len(secret) - lead) // 3 * 3]
        yield base64.b64encode(whole)
        yield base64.urlsafe_b64encode(whole)


def of_numbers(values: np.ndarray) -> Iterator[bytes]:
    """Three numbers in a row as tensors, as words of the ring and as JSON text."""
    for kind in ("<f4", "<f8", ">f4", ">f8"):
        yield from texts(values.astype(kind).tobytes())
    yield json.dumps([float(value) for value in values])[1:-1].encode()
    yield json.dumps([canonical.decimal_text(float(value)) for value in values])[1:-1].encode()


def windows(values: np.ndarray) -> Iterator[np.ndarray]:
    """Zeros are everywhere, and say nothing."""
    return (part for start in range(len(values) - 2) if np.count_nonzero(part := values[start : start + 3]) == 3)


class Secrets:
    """What this test's hospitals know and the hub must not keep: description → needles."""

    def __init__(self, federation: Federation, run: str) -> None:
        self.needles: dict[str, set[bytes]] = {}
        for site in federation.sites.values():
            self._of_site(federation, site, run)

    def _add(self, what: str, needles: Iterator[bytes]) -> None:
        self.needles.setdefault(what, set()).update(needles)

    def _of_site(self, federation: Federation, site: Hospital, run: str) -> None:
        for (owner, round), values in site.updates.items():
            if owner != run:
                continue
            for window in windows(values.get("update", np.empty(0))):
                self._add(f"update of {site.name} in round {round}", of_numbers(window))
        for key, body in site.sent.items():
            if key[0] == run and key[-1] is Phase.UNMASK:
                release = wire.Release.parse(body)
                for share in [*release.seeds.values(), *release.mask_keys.values()]:
                    self._add(f"share released by {site.name}", texts(bytes.fromhex(share)))
                    self._add(f"share released by {site.name}", iter([str(int(share, 16)).encode()]))
        for state in (site.states.get(run),):
            if state is not None and state.entropy is not None:
                self._add(f"entropy of {site.name}", texts(bytes.fromhex(state.entropy)))

    def model(self, what: str, values: np.ndarray) -> None:
        for window in windows(values):
            self._add(what, of_numbers(window))

    def unmasked(self, federation: Federation, parameters: dict[str, int | str]) -> None:
        """The words of each update as they were before the masks."""
        codec = ring.Codec(federation.manifest.segments("train", parameters), len(NAMES))
        for site in federation.sites.values():
            for (_, round), values in site.updates.items():
                if "update" not in values:
                    continue
                factors = dict.fromkeys({"update", "control"} & values.keys(), float(values["weight"][0]))
                words = codec.encode(values, ring.rounding_seed(42, round, site.name), factors=factors)
                for window in windows(words[: len(values["update"])]):
                    self._add(f"unmasked words of {site.name}", texts(window.astype("<u4").tobytes()))

    def found_in(self, haystacks: dict[str, bytes]) -> list[str]:
        return [
            f"{what} in {place}"
            for what, needles in self.needles.items()
            for place, content in haystacks.items()
            if any(needle in content for needle in needles)
        ]


def everything(federation: Federation, database_url: str, objects: dict[str, bytes]) -> dict[str, bytes]:
    """Every file below the hub's folder except its own keys, every row, every object."""
    folder = federation.hub.folder
    files: dict[str, bytes] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # the hub removes what it has folded
            if path.parent.name != "keys":
                files[str(path.relative_to(folder))] = path.read_bytes()
    engine = sa.create_engine(database.parse_url(database_url))
    rows = {}
    with engine.connect() as connection:
        schema = sa.MetaData()
        schema.reflect(connection)
        for table in schema.sorted_tables:
            values = [value for row in connection.execute(table.select()) for value in row]
            rows[f"table {table.name}"] = b"\n".join(
                bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode() for value in values
            )
    engine.dispose()
    assert any(rows.values())
    assert any(files.values())
    return files | rows | objects


def objects_of(server: minio.Server, bucket: str) -> dict[str, bytes]:
    client = minio_client.Minio(server.address, server.access_key, server.secret_key, secure=False)
    found = {}
    for item in client.list_objects(bucket, recursive=True):
        answer = client.get_object(bucket, str(item.object_name))
        found[f"object {item.object_name}"] = answer.read()
        answer.close()
    return found


@pytest.fixture(params=["sqlite and a folder", "postgresql and minio"])
def places(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str, minio.Server | None]]:
    """Database URL, artifacts URL, and the object store if there is one."""
    if request.param.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'hub' / 'hub.sqlite'}", "", None
        return
    (tmp_path / "minio").mkdir()
    with minio.running(tmp_path / "minio") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield str(request.getfixturevalue("postgres_url")), server.url("sealed"), server


@pytest.mark.parametrize("strategy", ["scaffold", "fedyogi"])
def test_nothing_of_a_run_can_be_read_where_it_rests(
    tmp_path: Path, places: tuple[str, str, minio.Server | None], strategy: str
) -> None:
    database_url, artifacts_url, server = places
    snapshots: list[dict[str, bytes]] = []
    with hubs.running(tmp_path / "hub", database=database_url, artifacts=artifacts_url) as hub:
        federation = Federation(hub)
        models: list[np.ndarray] = []

        def look(task: wire.Task) -> bool:
            """Every hospital looks before it votes and releases: some of the others have done so already."""
            if task.phase in (Phase.SURVIVORS, Phase.UNMASK) and task.opening.kind is Kind.TRAIN:
                snapshots.append(everything(federation, database_url, {}))
            return True

        def keep(task: wire.Task) -> bool:
            if task.model is not None and task.phase is Phase.KEYS:
                models.append(federation.sites["lyon"].fetch(federation.manifest, task))
            return look(task)

        for site in federation.sites.values():
            site.before = look
        federation.sites["lyon"].before = keep
        try:
            federation.start()
            run = federation.submit(rounds=2, strategy=strategy, server_learning_rate="0.1")
            federation.complete(run)
            secrets = Secrets(federation, run)
            for index, model in enumerate(models):
                secrets.model(f"model {index}", model)
            secrets.unmasked(federation, parameters(federation, run))
            objects = objects_of(server, "sealed") if server else {}
            assert server is None or objects
            snapshots.append(everything(federation, database_url, objects))
        finally:
            federation.close()
    assert len(models) == 3
    assert len(snapshots) >= 5
    assert {what.split(" ")[0] for what in secrets.needles} >= {"update", "share", "model", "unmasked"}
    for snapshot in snapshots:
        assert secrets.found_in(snapshot) == []


def parameters(federation: Federation, run: str) -> dict[str, int | str]:
    found: dict[str, int | str] = federation.run(run)["parameters"]
    return found


def test_what_is_planted_is_found_in_every_encoding() -> None:
    """The search itself can fail: each encoding, put between other bytes, is seen."""
    share = bytes(range(40, 73))
    values = np.array([0.125, -3.75, 2.5e-3], np.float32)
    secrets = Secrets.__new__(Secrets)
    secrets.needles = {"share": set(texts(share)), "update": set(of_numbers(values))}
    written = [
        share,
        share.hex().encode(),
        base64.b64encode(b"xy" + share),
        base64.b64encode(b"x" + share),
        base64.urlsafe_b64encode(share),
        values.tobytes(),
        values.astype("<f8").tobytes(),
        base64.b64encode(b"?" + values.tobytes()),
        json.dumps(values.tolist()).encode(),
    ]
    for content in written:
        assert secrets.found_in({"file": b"before" + content + b"after"}), content
    assert secrets.found_in({"file": b"nothing of it"}) == []
