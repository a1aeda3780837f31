"""The hub's own HTTPS under a private authority: researchers, sites, a renewed certificate, a proxy before it."""

import contextlib
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from cryptography import x509

from koinon.agent import link
from koinon.agent.hub import Hub
from koinon.client import commands
from koinon.client import hub as hubs
from koinon.domain import errors, httpsig, wire
from koinon.gateway import tls
from tests.services.authority import Authority
from tests.services.hospitals import Hospital
from tests.services.hubs import wait_for
from tests.services.mounts import Mount
from tests.services.served import pair, serving

STATUS = wire.SiteStatus(version="1", doing="idle", disk_free=1, clock=0.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def secret(tmp_path: Path, authority: Authority) -> Mount:
    return Mount(tmp_path / "secret", pair(authority, tmp_path))


@pytest.fixture
def options(secret: Mount) -> list[str]:
    return ["--tls-cert", str(secret.folder / "tls.crt"), "--tls-key", str(secret.folder / "tls.key")]


def serial(port: int, authority: Authority) -> int:
    """Of the certificate that the hub shows to a new connection."""
    trusting = ssl.create_default_context(cafile=authority.certificate)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        assert secured.version() in ("TLSv1.2", "TLSv1.3")
        return x509.load_der_x509_certificate(shown).serial_number


def ends(secret: Mount) -> float:
    return x509.load_pem_x509_certificate((secret.folder / "tls.crt").read_bytes()).not_valid_after_utc.timestamp()


def test_researchers_and_sites_reach_it_with_the_authority_alone(
    tmp_path: Path, authority: Authority, options: list[str]
) -> None:
    with serving(tmp_path / "hub", *options) as hub:
        assert hub.address == f"https://127.0.0.1:{hub.port}"
        token = hub.token("ada")
        with hubs.connect(hub.address, token=token, ca=authority.certificate) as found:
            assert found.projects() == []
        with hubs.connect(hub.address, token=token) as found, pytest.raises(errors.Unavailable) as caught:
            found.projects()
        assert "not trusted" in caught.value.what
        assert "--ca" in caught.value.todo
        site = Hospital("lyon", hub.address)
        site.http = link.connection(hub.address, authority=authority.certificate, proxy=None, timeout=30.0)
        assert site.enrol(hub.invitation("lyon")).status_code == 201
        agent = Hub(hub.address, "lyon", site.signer, stop=threading.Event(), authority=authority.certificate)
        assert agent.poll(0, STATUS, wait=0.0).projects == ()
        assert agent.heard is not None
        agent.close()
        stranger = Hub(hub.address, "lyon", site.signer, stop=threading.Event())
        with pytest.raises(errors.Unavailable, match="certificate is not trusted"):
            stranger.poll(0, STATUS, wait=0.0)
        stranger.close()
        site.http.close()


def test_the_command_keeps_the_authority_with_the_login(
    tmp_path: Path, authority: Authority, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "hub", *options) as hub:
        (tmp_path / "token").write_text(hub.token("ada"))
        monkeypatch.setenv("KOINON_CONFIG", str(tmp_path / "config"))
        login = ["login", hub.address, "--token-file", str(tmp_path / "token")]
        with pytest.raises(errors.Unavailable, match="not trusted"):
            commands.run(*login)
        monkeypatch.chdir(authority.certificate.parent)
        commands.run(*login, "--ca", "ca.crt")
        monkeypatch.chdir("/")
        assert commands.run("project", "list") == []
        monkeypatch.setenv("KOINON_CONFIG", str(tmp_path / "other"))
        for name, value in (("HUB", hub.address), ("TOKEN", (tmp_path / "token").read_text())):
            monkeypatch.setenv(f"KOINON_{name}", value)
        monkeypatch.setenv("KOINON_CA", str(authority.certificate))
        assert commands.run("project", "list") == []
        monkeypatch.setenv("KOINON_CA", str(tmp_path / "token"))
        with pytest.raises(errors.Invalid, match="no certificate authority"):
            commands.run("project", "list")


def test_a_renewed_certificate_is_taken_up_and_half_of_one_is_not(
    tmp_path: Path, authority: Authority, secret: Mount, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path / "hub", *options) as hub:
        before = serial(hub.port, authority)
        fresh = pair(authority, tmp_path)
        old = {name: (secret.folder / name).read_bytes() for name in fresh}
        with httpx.Client(
            base_url=hub.address, verify=ssl.create_default_context(cafile=authority.certificate)
        ) as kept:
            kept.get("/healthz").raise_for_status()
            told = re.search(r"^koinon_certificate_expiry_timestamp_seconds (.+)$", kept.get("/metrics").text, re.M)
            assert told is not None
            assert float(told[1]) == ends(secret)
            secret.write({"tls.crt": fresh["tls.crt"], "tls.key": old["tls.key"]})
            wait_for(lambda: "not taken up" in hub.log(), 2 * tls.EVERY, "the error in the log")
            assert serial(hub.port, authority) == before
            secret.write(fresh)
            wait_for(lambda: serial(hub.port, authority) != before, 2 * tls.EVERY, "the new certificate")
            kept.get("/healthz").raise_for_status()  # nobody was cut off


@pytest.mark.parametrize("wrong", ["absent", "another's key", "no key"])
def test_a_certificate_that_cannot_be_used_is_said_before_anything_is_changed(
    tmp_path: Path, authority: Authority, secret: Mount, options: list[str], wrong: str
) -> None:
    if wrong == "absent":
        options[3] = str(tmp_path / "nowhere")
    elif wrong == "another's key":
        secret.write({"tls.crt": pair(authority, tmp_path)["tls.crt"], "tls.key": pair(authority, tmp_path)["tls.key"]})
    else:
        options = options[:2]
    command = [*commands.KOINON, "hub", "serve", "--dir", str(tmp_path / "hub"), "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    said = {"absent": "no such file", "another's key": "cannot be used", "no key": "--tls-key"}[wrong]
    assert said in done.stderr
    assert not (tmp_path / "hub" / "keys").exists()


@contextlib.contextmanager
def ingress(port: int, secret: Mount, below: str) -> Iterator[int]:
    """Ends TLS before a plain hub, names another host and takes a path off, as an ingress may."""
    context = tls.context(tls.Files(secret.folder / "tls.crt", secret.folder / "tls.key"))

    def relay(outside: ssl.SSLSocket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += outside.recv(65_536)
        head, _, body = head.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"host", b"connection"))]
        lines[0] = lines[0].replace(b" " + below.encode(), b" ", 1)
        lines[1:1] = [b"Host: hub.internal", b"Connection: close", b"X-Forwarded-Proto: https"]
        length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
        while len(body) < length:
            body += outside.recv(65_536)
        with socket.create_connection(("127.0.0.1", port)) as inside:
            inside.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            while answer := inside.recv(65_536):
                outside.sendall(answer)

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the server is closed
            while True:
                plain, _ = server.accept()
                with context.wrap_socket(plain, server_side=True) as outside:
                    relay(outside)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("below", ["", "/league/hub"])
def test_signatures_hold_behind_an_ingress(tmp_path: Path, authority: Authority, secret: Mount, below: str) -> None:
    url = f"https://hub.example.org{below}"
    with serving(tmp_path / "hub", "--url", url) as hub, ingress(hub.port, secret, below) as port:
        assert hub.address == url
        outside = f"https://localhost:{port}{below}"
        site = Hospital("lyon", outside)
        site.http = link.connection(outside, authority=authority.certificate, proxy=None, timeout=30.0)
        assert site.enrol(hub.invitation("lyon")).status_code == 201
        agent = Hub(outside, "lyon", site.signer, stop=threading.Event(), authority=authority.certificate)
        assert agent.poll(0, STATUS, wait=0.0).projects == ()
        if below:  # what was signed for another path does not hold
            direct, body = f"http://127.0.0.1:{hub.port}/v1/sites/me/tasks?after=0&wait=0", STATUS.encode()
            headers = httpsig.sign("POST", direct, "lyon", site.signer, created=time.time(), body=body)
            headers["Koinon-Protocol"] = "1"
            assert httpx.post(direct, content=body, headers=headers, trust_env=False).status_code == 401
        agent.close()
        site.http.close()


@contextlib.contextmanager
def proxy(seen: list[str]) -> Iterator[str]:
    """A proxy that knows CONNECT alone, to loopback."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65_536):
                sink.sendall(block)
            sink.shutdown(socket.SHUT_WR)

    def relay(caller: socket.socket) -> None:
        with caller:
            head = b""
            while b"\r\n\r\n" not in head:
                head += caller.recv(65_536)
            line = head.split(b"\r\n")[0].decode()
            seen.append(line)
            host, _, port = line.split()[1].rpartition(":")
            assert host == "127.0.0.1"
            with socket.create_connection((host, int(port))) as there:
                caller.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=pump, args=(there, caller))
                back.start()
                pump(caller, there)
                back.join(30)

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the server is closed
            while True:
                caller, _ = server.accept()
                threading.Thread(target=relay, args=(caller,)).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def test_a_site_goes_through_the_proxy_it_was_told_and_no_other(
    tmp_path: Path, authority: Authority, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody is
    seen: list[str] = []
    with serving(tmp_path / "hub", *options) as hub, proxy(seen) as through:
        site = Hospital("lyon", hub.address)
        site.http = link.connection(hub.address, authority=authority.certificate, proxy=through, timeout=30.0)
        assert site.enrol(hub.invitation("lyon")).status_code == 201
        assert seen == [f"CONNECT 127.0.0.1:{hub.port} HTTP/1.1"]
        site.http.close()
        for chosen, expected in ((through, 2), (None, 2)):
            agent = Hub(
                hub.address, "lyon", site.signer, stop=threading.Event(), authority=authority.certificate, proxy=chosen
            )
            cursor = agent.poll(0, STATUS, wait=0.0).cursor
            began = time.monotonic()
            agent.poll(cursor, STATUS, wait=3.0)  # a long-poll passes
            assert time.monotonic() - began >= 3.0
            assert len(seen) == expected
            agent.close()


def test_plain_http_for_others_is_warned_of(tmp_path: Path) -> None:
    with serving(tmp_path / "hub", "--host", "0.0.0.0") as hub:
        assert urlsplit(hub.address).hostname == "0.0.0.0"
        assert "Plain HTTP on 0.0.0.0" in hub.log()
        assert httpx.get(f"http://127.0.0.1:{hub.port}/healthz", trust_env=False).json() == {"ok": True}
