"""What a hospital's IT does to a site: enrol it, renew its keys, grant and revoke projects.

Only here the root key is read, and only to sign; the agent that serves never opens it.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from koinon.agent import config, consents, link
from koinon.agent.config import Folder, Settings
from koinon.agent.marker import write_durable
from koinon.artifacts import keyfiles
from koinon.domain import httpsig
from koinon.domain.errors import Conflict, NotFound, Unauthenticated, Unavailable, Untrusted
from koinon.domain.grant import Grant, Resources, Revocation
from koinon.domain.keys import Certificate, SigningKey, fingerprint
from koinon.domain.manifest import Manifest

YEAR = 365 * 86_400
_SKEW = 300  # a certificate is valid from a little before now, for peers whose clock is behind


@dataclass(frozen=True)
class Enrolled:
    """Fingerprints for people to compare on the telephone: of this site's root key and of the hub's signing key."""

    site: str
    fingerprint: str
    hub_fingerprint: str


def enrol(folder: Path, *, name: str, hub_url: str, token: str, datasets: Mapping[str, str], now: float) -> Enrolled:
    """Makes the site's folder with fresh keys and enrols it at the hub with its one-time token.

    May be repeated after a failure: keys that are there are kept. Raises Conflict if the folder is another site's,
    Unauthenticated for a token that is unknown or used.
    """
    config.require_loopback(hub_url)
    paths = Folder(folder)
    settings = Settings.of({"name": name, "hub": hub_url, "datasets": dict(datasets)}, where="site.yaml")
    if paths.settings.exists() and config.read(folder).name != name:
        raise Conflict(f"This folder is of the site {config.read(folder).name}.", where=str(folder))
    paths.make()
    config.write(folder, settings)
    root = _root_key(paths, make=True)
    certificate = _first_certificate(paths, root, name, now)
    return introduce(settings, root.public, certificate, token)


def introduce(settings: Settings, root: str, certificate: Certificate, token: str) -> Enrolled:
    """Enrols at the hub with an invitation; may be repeated, also with one that this root has used already.

    Raises Unauthenticated for a token that is unknown or another's, Conflict if the name is taken by another root.
    """
    shown = call(settings, "GET", "/v1/hub")
    body = {"token": token, "site": settings.name, "root": root, "certificate": certificate.model_dump()}
    call(settings, "POST", "/v1/sites/enrol", body)
    return Enrolled(settings.name, fingerprint(root), fingerprint(str(shown.get("signing", ""))))


def _root_key(paths: Folder, *, make: bool = False) -> SigningKey:
    if make and not paths.root_key.exists():
        keyfiles.write_signing_key(paths.root_key, SigningKey(secrets.token_bytes(32)))
    try:
        return keyfiles.read_signing_key(paths.root_key)
    except NotFound:
        raise NotFound(
            "The root key is not here.",
            where=str(paths.root_key),
            todo="Bring it back from where the hospital keeps it, for this command only.",
        ) from None


def _first_certificate(paths: Folder, root: SigningKey, name: str, now: float) -> Certificate:
    if paths.certificate.exists():
        known = read_certificate(paths)
        known.check_for(root.public, name, now)
        return known
    return _new_keys(paths.agent, root, name, epoch=1, now=now)


def _new_keys(target: Path, root: SigningKey, name: str, *, epoch: int, now: float) -> Certificate:
    """Fresh operational keys with their certificate in the folder `target`."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    signing, recipient = SigningKey(secrets.token_bytes(32)), keyfiles.new_identity()
    keyfiles.write_signing_key(target / "signing.key", signing, replace=True)
    keyfiles.write_identity(target / "recipient.key", recipient, replace=True)
    certificate = Certificate(
        site=name,
        epoch=epoch,
        signing=signing.public,
        recipient=recipient.recipient,
        not_before=int(now) - _SKEW,
        not_after=int(now) + YEAR,
    ).signed(root)
    write_durable(target / "certificate.json", certificate.encode())
    return certificate


def read_certificate(paths: Folder) -> Certificate:
    try:
        return Certificate.parse(paths.certificate.read_bytes(), where="certificate")
    except FileNotFoundError:
        raise NotFound("This site is not enrolled.", where=str(paths.path), todo="koinon site init") from None


def make_keys(folder: Path, *, name: str, now: float) -> Certificate:
    """Offline, for an agent that runs elsewhere: the root key and the agent's keys in a new folder.

    `agent/` of it is what the agent needs, with the root's public key; it enrols itself. May be repeated: keys that
    are there are kept. Raises Conflict if the folder is another site's.
    """
    paths = Folder(folder)
    if paths.certificate.exists() and (known := read_certificate(paths)).site != name:
        raise Conflict(f"This folder is of the site {known.site}.", where=str(folder))
    root = _root_key(paths, make=True)
    certificate = _first_certificate(paths, root, name, now)
    write_durable(paths.root_public, f"{root.public}\n".encode(), mode=0o644)
    return certificate


def renew_keys(folder: Path, *, now: float) -> Certificate:
    """Offline: new keys of the agent, of the next epoch. The old ones stay beside them, since the agent shows the hub
    the new certificate with the old signing key. May be repeated after a failure."""
    paths = Folder(folder)
    old, certificate = _next_keys(paths, now)
    if certificate.epoch > old.epoch:
        for path in (paths.signing_key, paths.recipient_key):
            kept = path.with_name(f"{path.stem}-{old.epoch}.key")
            if not kept.exists():
                os.replace(path, kept)
    _take_next(paths)
    return certificate


def _next_keys(paths: Folder, now: float) -> tuple[Certificate, Certificate]:
    """The present certificate and, in the folder `next`, the following one with its keys."""
    old, fresh = read_certificate(paths), paths.agent / "next"
    if not (fresh / "certificate.json").exists():
        _new_keys(fresh, _root_key(paths), old.site, epoch=old.epoch + 1, now=now)
    return old, Certificate.parse((fresh / "certificate.json").read_bytes(), where="certificate")


def _take_next(paths: Folder) -> None:
    fresh = paths.agent / "next"
    for name in ("recipient.key", "signing.key", "certificate.json"):
        if (fresh / name).exists():
            os.replace(fresh / name, paths.agent / name)
    shutil.rmtree(fresh)


def renew(folder: Path, *, now: float) -> Certificate:
    """New operational keys of the next epoch, certified by the root key and handed to the hub. Stop the agent first.

    The old recipient key is kept, so that what was sealed to it can still be opened. May be repeated after a failure.
    """
    paths = Folder(folder)
    settings = config.read(folder)
    old, certificate = _next_keys(paths, now)
    if certificate.epoch > old.epoch:
        fresh = paths.agent / "next"
        path = "/v1/sites/me/certificate"
        try:
            signed(settings, keyfiles.read_signing_key(paths.signing_key), "PUT", path, certificate, now)
        except Unauthenticated:  # the hub took it up the last time, and this site did not hear so
            signed(settings, keyfiles.read_signing_key(fresh / "signing.key"), "PUT", path, certificate, now)
        os.replace(paths.recipient_key, paths.agent / f"recipient-{old.epoch}.key")
    _take_next(paths)
    return certificate


def make_grant(
    folder: Path,
    manifest: Manifest,
    *,
    dataset: str,
    vouched: Iterable[str],
    days: float,
    now: float,
    resources: Resources | None = None,
    min_sites: int = 3,
    min_others: int = 2,
) -> Grant:
    """Signs this site's grant of `manifest` for `days` and puts it where the agent takes it up.

    `vouched` are the peers whose fingerprints this hospital compared. Raises Invalid for what does not fit the manifest
    or `site.yaml`.
    """
    paths, settings = Folder(folder), config.read(folder)
    settings.dataset(dataset, paths)
    signed = consents.grant(
        manifest,
        _root_key(paths),
        settings.name,
        dataset=dataset,
        vouched=vouched,
        days=days,
        now=now,
        resources=resources,
        min_sites=min_sites,
        min_others=min_others,
    )
    name = manifest.digest()
    paths.make()
    write_durable(paths.manifests / f"{name}.json", manifest.encode())
    write_durable(paths.grants / f"{name}.json", signed.encode())
    return signed


def revoke(folder: Path, manifest: str, *, now: float) -> Revocation:
    """Ends every grant of `manifest` (its hash) made until now; the agent kills its trainer when it sees this."""
    paths, settings = Folder(folder), config.read(folder)
    granted = paths.grants / f"{manifest}.json"
    if not granted.exists():
        raise NotFound(f"{settings.name} has not granted {manifest[:12]}….", where="revoke", todo="koinon project list")
    signed = consents.revocation(Grant.parse(granted.read_bytes(), where=granted.name), _root_key(paths), now=now)
    write_durable(paths.revocations / f"{manifest}.json", signed.encode())
    return signed


def call(settings: Settings, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
    """One request to the hub. Raises the error its answer describes, or Unavailable."""
    url, kind = settings.hub, {"Content-Type": "application/json"}
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with link.connection(url, authority=settings.authority, proxy=settings.proxy, timeout=30.0) as client:
            response = client.request(method, path, content=content, headers={**kind, **(headers or {})})
    except httpx.TransportError as error:
        raise Unavailable(
            f"The hub does not answer ({link.reason(error)}).", where=url, todo="Is it running? koinon hub serve"
        ) from None
    if response.status_code >= 400:
        raise link.problem(response.content, response.status_code)
    try:
        return response.json()
    except ValueError:
        raise Untrusted("The hub's answer is not JSON.", where=url) from None


def signed(settings: Settings, key: SigningKey, method: str, path: str, document: Certificate, now: float) -> None:
    body = document.encode()
    url = settings.hub.rstrip("/") + path
    headers = httpsig.sign(method, url, settings.name, key, created=now, body=body)
    call(settings, method, path, body, headers)
