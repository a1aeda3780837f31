"""A site as Kubernetes lays it out: settings, keys and consents mounted elsewhere, and swapped while the agent runs."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from koinon.agent import config, setup
from koinon.agent.config import Folder, Kubernetes, Settings
from koinon.agent.logs import Log
from koinon.agent.policy import Refusal
from koinon.agent.projects import Book
from koinon.agent.watch import Watch
from koinon.artifacts import keyfiles
from koinon.domain.errors import Invalid, NotFound, Refused, Untrusted
from koinon.domain.grant import Revocation
from koinon.domain.keys import SigningKey
from tests.services.mounts import Mount
from tests.unit.agent.openings import NOW, SITE, grant
from tests.unit.domain import manifests

MANIFEST = manifests.build()
NAME = MANIFEST.digest()
GRANT = {f"grants.{NAME}.json": grant(MANIFEST).encode()}
ROOT = manifests.ROOTS[SITE]


def revocation(time: float = NOW, root: SigningKey = ROOT) -> dict[str, bytes]:
    made = Revocation(manifest=NAME, site=SITE, time=int(time)).signed(root)
    return {f"revocations.{NAME}.json": made.encode()}


class Pod:
    """A site's folder with its mounts."""

    def __init__(self, path: Path) -> None:
        self.keys = Mount(path / "keys", {"root.pub": f"{ROOT.public}\n".encode()})
        self.consents = Mount(path / "consents")
        given = Kubernetes(work_namespace="w", keys=str(path / "keys"), consents=str(path / "consents"))
        self.folder = Folder(path / "state", given)
        self.folder.make()
        self.book = Book(self.folder, SITE)
        self.book.keep_manifest(NAME, MANIFEST.encode())

    def refusal(self) -> str | None:
        try:
            self.book.project(NAME, NOW)
        except Refusal as refusal:
            return refusal.code
        return None


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def test_consents_come_and_go_with_their_mount(pod: Pod) -> None:
    assert pod.refusal() == "no_grant"
    pod.consents.write(GRANT)
    pod.book.reload()
    assert pod.refusal() is None
    pod.consents.write({})
    pod.book.reload()
    assert pod.refusal() == "no_grant"
    (pod.folder.path / "grants").mkdir()
    (pod.folder.path / "grants" / f"{NAME}.json").write_bytes(grant(MANIFEST).encode())
    pod.book.reload()
    assert pod.refusal() == "no_grant"  # the volume is not where a hospital says yes


def test_a_revocation_is_kept_whatever_becomes_of_the_mount(pod: Pod) -> None:
    pod.consents.write(GRANT | revocation())
    pod.book.reload()
    assert pod.refusal() == "revoked"
    for content in (GRANT, GRANT | revocation(NOW - 500)):  # taken away, or put back to an older one
        pod.consents.write(content)
        pod.book.reload()
        assert pod.refusal() == "revoked"
        assert Book(pod.folder, SITE).revocations[NAME].time == int(NOW)
    later = {f"grants.{NAME}.json": grant(MANIFEST, not_before=int(NOW) + 1, expires=int(NOW) + 2_000).encode()}
    pod.consents.write(later)
    pod.book.reload()
    assert pod.book.project(NAME, NOW + 10).hash == NAME  # a hospital may grant again


def test_a_revocation_by_nobody_blocks_only_while_it_is_there(pod: Pod) -> None:
    for content in (revocation(NOW + 10**6, SigningKey(b"x" * 32)), {f"revocations.{NAME}.json": b"{"}):
        pod.consents.write(GRANT | content)
        pod.book.reload()
        assert pod.refusal() in ("bad_grant", "bad_revocation")
        pod.consents.write(GRANT)
        pod.book.reload()
        assert pod.refusal() is None


def test_each_swap_wakes_the_watch(pod: Pod) -> None:
    watch, seen, taken = Watch(pod.folder.watched), [], threading.Event()

    def follow() -> None:
        while watch.wait(None):
            pod.book.reload()
            seen.append(pod.refusal())
            taken.set()

    thread = threading.Thread(target=follow)
    thread.start()
    for content, expected in ((GRANT, None), (GRANT | revocation(), "revoked")):
        began = time.monotonic()
        pod.consents.write(content)
        while not seen or seen[-1] != expected:
            assert taken.wait(10), seen
            taken.clear()
        assert time.monotonic() - began < 2.0
    watch.close()
    thread.join(10)


def test_swaps_in_the_middle_of_a_reading_lose_no_grant(pod: Pod) -> None:
    """Kubelet removes the old folder as soon as the link shows the new one."""
    over = threading.Event()
    others = {f"grants.{n:064x}.json": grant(MANIFEST).encode() for n in range(20)}
    pod.consents.write(GRANT | others)

    def swap() -> None:
        while not over.is_set():
            pod.consents.write(GRANT | others)
            time.sleep(0.02)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(100):
            pod.book.reload()
            assert pod.refusal() is None
            assert pod.book.problems == {}
    finally:
        over.set()
        thread.join(10)


def test_there_may_be_no_consents_yet(tmp_path: Path) -> None:
    (tmp_path / "consents").mkdir()
    given = Kubernetes(work_namespace="w", keys=str(tmp_path), consents=str(tmp_path / "consents"))
    folder = Folder(tmp_path / "state", given)
    folder.make()
    assert Book(folder, SITE).grants == {}


# settings


def settings(**changes: Any) -> dict[str, Any]:
    given = {"name": "lyon", "hub": "https://hub.example.org", "kubernetes": {"work_namespace": "lyon-work"}}
    return given | changes


def test_settings_from_elsewhere(tmp_path: Path) -> None:
    text = yaml.safe_dump(
        settings(hub_ca="/ca.crt", proxy="http://proxy:3128", datasets={"heart": "/data/heart/h.csv"})
    )
    mount = Mount(tmp_path / "site", {"site.yaml": text.encode()})
    folder, read = config.load(tmp_path / "state", mount.folder / "site.yaml")
    config.require_allowed(read)
    assert read.dataset("heart", folder) == Path("/data/heart/h.csv")  # as Ray's pods see it; nobody looks here
    assert (read.authority, read.proxy) == (Path("/ca.crt"), "http://proxy:3128")
    assert read.kubernetes is not None
    assert read.kubernetes.host("ab" * 32) == "p-abababababab-head.lyon-work.svc"
    assert folder.signing_key == Path("/etc/koinon/keys/signing.key")
    assert folder.work == tmp_path / "state" / "agent" / "work"
    with pytest.raises(NotFound):
        config.load(tmp_path / "state")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({}, None),
        ({"hub": "http://hub.example.org"}, "https only"),
        ({"hub": "http://127.0.0.1:8470"}, None),
        ({"kubernetes": None}, "serves only a hub on this machine"),
        ({"hub": "hub.example.org"}, "not the address"),
    ],
)
def test_a_hub_on_the_network_is_for_kubernetes_and_over_https(change: dict[str, Any], error: str | None) -> None:
    read = Settings.of(settings(**change))
    if error is None:
        config.require_allowed(read)
    else:
        with pytest.raises((Refused, Invalid), match=error):
            config.require_allowed(read)


def test_what_is_not_set_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    config.write(tmp_path / "site", Settings(name="lyon", hub="http://127.0.0.1:8470"))
    assert yaml.safe_load((tmp_path / "site" / "site.yaml").read_text()) == {
        "name": "lyon", "hub": "http://127.0.0.1:8470", "datasets": {}
    }  # fmt: skip


# keys


@pytest.mark.parametrize(
    ("mode", "mine", "good"),
    [(0o600, True, True), (0o400, True, True), (0o440, True, False), (0o640, True, False), (0o440, False, True),
     (0o640, False, True), (0o460, False, False), (0o444, False, False), (0o404, False, False)],
)  # fmt: skip
def test_a_key_may_be_of_a_mounted_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, mine: bool, good: bool
) -> None:
    path = tmp_path / "signing.key"
    keyfiles.write_signing_key(path, ROOT)
    path.chmod(mode)
    if not mine:
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 65_532)
    if good:
        assert keyfiles.read_signing_key(path).public == ROOT.public
    else:
        with pytest.raises(Untrusted, match="Others have access"):
            keyfiles.read_signing_key(path)


def test_keys_are_made_offline_and_the_secret_has_no_root(tmp_path: Path) -> None:
    made = setup.make_keys(tmp_path / "lyon", name="lyon", now=NOW)
    assert setup.make_keys(tmp_path / "lyon", name="lyon", now=NOW + 5) == made
    folder = Folder(tmp_path / "lyon")
    root = keyfiles.read_signing_key(folder.root_key)
    files = {path.name: path for path in folder.agent.iterdir()}
    assert set(files) == {"signing.key", "recipient.key", "certificate.json", "root.pub"}
    assert files["root.pub"].read_text() == root.public + "\n"
    made.check_for(root.public, "lyon", NOW)
    assert not any(root.secret().hex() in path.read_text() for path in files.values())
    with pytest.raises(Exception, match="of the site lyon"):
        setup.make_keys(tmp_path / "lyon", name="nice", now=NOW)


def test_keys_are_renewed_offline_and_the_old_ones_stay(tmp_path: Path) -> None:
    first = setup.make_keys(tmp_path / "lyon", name="lyon", now=NOW)
    folder = Folder(tmp_path / "lyon")
    second = setup.renew_keys(tmp_path / "lyon", now=NOW + 10)
    third = setup.renew_keys(tmp_path / "lyon", now=NOW + 20)
    assert (first.epoch, second.epoch, third.epoch) == (1, 2, 3)
    assert setup.read_certificate(folder) == third
    for epoch, certificate in ((1, first), (2, second)):
        signing = keyfiles.read_signing_key(folder.agent / f"signing-{epoch}.key")
        recipient = keyfiles.read_identity(folder.agent / f"recipient-{epoch}.key")
        assert (signing.public, recipient.recipient) == (certificate.signing, certificate.recipient)
    assert keyfiles.read_signing_key(folder.signing_key).public == third.signing
    assert not (folder.agent / "next").exists()


@pytest.mark.parametrize(
    "gone", ["signing.key", "signing.key recipient.key", "signing.key recipient.key next/signing.key"]
)
def test_a_renewal_that_broke_off_goes_on(tmp_path: Path, gone: str) -> None:
    first = setup.make_keys(tmp_path / "lyon", name="lyon", now=NOW)
    folder = Folder(tmp_path / "lyon")
    setup._next_keys(folder, NOW + 10)
    for name in gone.split():
        path = folder.agent / name
        if name.startswith("next/"):
            path.rename(folder.agent / "signing.key")
        else:
            path.rename(path.with_name(f"{path.stem}-1.key"))
    renewed = setup.renew_keys(tmp_path / "lyon", now=NOW + 20)
    assert renewed.epoch == 2
    assert keyfiles.read_signing_key(folder.signing_key).public == renewed.signing
    assert keyfiles.read_identity(folder.recipient_key).recipient == renewed.recipient
    assert keyfiles.read_signing_key(folder.agent / "signing-1.key").public == first.signing


# log


def test_in_kubernetes_the_log_is_on_stdout_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(tmp_path / "log" / "agent.log", stdout=True)
    log.event("serving", site="lyon", text="two\nlines")
    log.close()
    line = capsys.readouterr().out
    assert line == (tmp_path / "log" / "agent.log").read_text()
    assert json.loads(line)["event"] == "serving"
    assert line.count("\n") == 1
