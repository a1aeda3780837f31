"""The researcher's own key pair: results are sealed to its recipient, and only this file opens them."""

from pathlib import Path

from koinon.artifacts import keyfiles
from koinon.artifacts.keyfiles import Identity
from koinon.domain import errors

OWNER = "researcher"  # how a manifest calls a recipient whom nobody named


def create(path: Path) -> str:
    """A new key in `path` (0600). Returns its recipient.

    Raises Conflict rather than write over a key: what was sealed to the old one could never be opened again.
    """
    if path.exists():
        raise errors.Conflict(
            "There is a key already, and results are sealed to it.",
            where=str(path),
            todo="Keep it: koinon key show prints its recipient. For a second one: koinon key new --out FILE",
        )
    identity = keyfiles.new_identity()
    keyfiles.write_identity(path, identity)
    return identity.recipient


def load(path: Path) -> Identity:
    """Raises NotFound, Invalid, or Untrusted if others can read the file."""
    try:
        return keyfiles.read_identity(path)
    except errors.NotFound:
        raise errors.NotFound(
            "There is no key to seal results to, or to open them with.", where=str(path), todo="koinon key new"
        ) from None


def recipient(path: Path) -> dict[str, str]:
    """The key in `path` as a manifest lists it."""
    return {"name": OWNER, "recipient": load(path).recipient}
