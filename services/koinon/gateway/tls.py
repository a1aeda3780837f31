"""The hub's own HTTPS: a certificate and its key from files, taken up anew when they change.

Kubernetes swaps the files of a mounted Secret; a new pair is tried apart first, so that half of one changes nothing.
"""

import asyncio
import logging
import math
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from koinon.domain.errors import Invalid, KoinonError, NotFound

EVERY = 10.0  # seconds between two looks at the files
_log = logging.getLogger("koinon.gateway")


@dataclass(frozen=True)
class Files:
    """A certificate with its chain and a private key, both PEM."""

    certificate: Path
    key: Path

    def load(self, context: ssl.SSLContext) -> None:
        """Raises NotFound, Invalid."""
        try:
            context.load_cert_chain(self.certificate, self.key, password=_refuse)
        except FileNotFoundError:
            missing = next((path for path in (self.certificate, self.key) if not path.exists()), self.certificate)
            raise NotFound("There is no such file.", where=str(missing), todo="See --tls-cert and --tls-key.") from None
        except (ssl.SSLError, ValueError, OSError) as error:
            raise Invalid(
                f"Certificate and key cannot be used ({type(error).__name__}).",
                where=f"{self.certificate}, {self.key}",
                todo="They must be PEM, without a password, and belong to each other.",
            ) from None

    def ends(self) -> float:
        """When the certificate ends, in seconds since 1970; NaN if it cannot be read now."""
        try:
            return x509.load_pem_x509_certificate(self.certificate.read_bytes()).not_valid_after_utc.timestamp()
        except (OSError, ValueError):
            return math.nan

    def stamp(self) -> tuple[bytes, bytes] | None:
        """Changes with what they hold."""
        try:
            return self.certificate.read_bytes(), self.key.read_bytes()
        except OSError:
            return None


def _refuse() -> str:
    raise ValueError("a key with a password")  # OpenSSL would ask at the terminal


def context(files: Files) -> ssl.SSLContext:
    """For a server: TLS 1.2 or newer. Raises NotFound, Invalid."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    files.load(made)
    return made


async def renew(live: ssl.SSLContext, files: Files, every: float = EVERY) -> None:
    """Gives `live`, and so every connection from now on, what newly lies in the files. Never returns."""
    known = files.stamp()
    while True:
        await asyncio.sleep(every)
        found = await asyncio.to_thread(files.stamp)
        if found is None or found == known:
            continue
        try:
            context(files)
            files.load(live)
        except KoinonError as error:
            _log.error("The new certificate is not taken up: %s", error)
            continue
        known = found
        _log.info("A new certificate is taken up.")
