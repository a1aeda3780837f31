"""An agent in Kubernetes makes itself known to the hub: with an invitation at first, with a certificate of its next
epoch after a renewal of its keys. Only a hub that does not know its key makes it do so."""

from pathlib import Path

from koinon.agent import setup
from koinon.agent.site import Site
from koinon.artifacts import keyfiles
from koinon.domain.errors import KoinonError, NotFound, Unauthenticated
from koinon.domain.keys import SigningKey


def join(site: Site) -> bool:
    """True if the hub should know this agent's key now. Raises Unavailable while it is away."""
    try:
        if _renewed(site):
            site.log.event("certificate-renewed", epoch=site.certificate.epoch)
            return True
        enrolled = setup.introduce(site.settings, _root(site), site.certificate, _invitation(site))
    except (Unauthenticated, NotFound) as error:
        site.log.event("not-enrolled", error=str(error))
        return False
    site.log.event("enrolled", fingerprint=enrolled.fingerprint, hub_fingerprint=enrolled.hub_fingerprint)
    return True


def _renewed(site: Site) -> bool:
    """Hands in the certificate, signed with the key of an older epoch that the hub may still know."""
    for key in _older(site.folder.keys):
        try:
            path = "/v1/sites/me/certificate"
            setup.signed(site.settings, key, "PUT", path, site.certificate, site.clock())
        except Unauthenticated:
            continue
        return True
    return False


def _older(keys: Path) -> list[SigningKey]:
    epochs = {path: path.stem.partition("-")[2] for path in keys.glob("signing-*.key")}
    known = sorted((path for path, epoch in epochs.items() if epoch.isdecimal()), key=lambda path: int(epochs[path]))
    return [keyfiles.read_signing_key(path) for path in reversed(known)]


def _root(site: Site) -> str:
    try:
        return site.folder.root_public.read_text().strip()
    except OSError:
        raise NotFound(
            "The root's public key is not here, so this agent cannot enrol itself.",
            where=str(site.folder.root_public),
            todo="Make the Secret of all files that koinon site keys wrote.",
        ) from None


def _invitation(site: Site) -> str:
    assert site.settings.kubernetes is not None
    path = Path(site.settings.kubernetes.invitation)
    try:
        return path.read_text().strip()
    except OSError:
        raise NotFound(
            "The hub does not know this site, and there is no invitation.",
            where=str(path),
            todo="Ask the hub's operator for one, and put it into the Secret that the chart names.",
        ) from None


def may_join(site: Site, error: KoinonError) -> bool:
    """Whether joining could help against `error`."""
    return site.settings.kubernetes is not None and isinstance(error, Unauthenticated)
