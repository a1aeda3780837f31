"""The hub's folder: its keys (mode 0600), and where database, artifacts, spool and packages are by default."""

import os
from dataclasses import dataclass
from pathlib import Path

from koinon.artifacts import keyfiles
from koinon.artifacts.keyfiles import Identity
from koinon.domain.errors import NotFound
from koinon.domain.keys import SigningKey


@dataclass(frozen=True)
class Folder:
    """`root` and what is in it. The keys are made once; whoever copies the folder copies the hub."""

    root: Path
    signing: SigningKey
    identity: Identity

    @property
    def database(self) -> str:
        return f"sqlite:///{self.root / 'hub.sqlite'}"

    @property
    def artifacts(self) -> str:
        return (self.root / "artifacts").as_uri()

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def address(self) -> Path:
        """A file with the URL of the running hub."""
        return self.root / "address"


def create(root: Path) -> Folder:
    """The hub's folder, with new keys where there are none. Call it under the folder's HubLock.

    Raises Untrusted if others can read a key.
    """
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = root / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    try:
        signing = keyfiles.read_signing_key(keys / "signing.key")
    except NotFound:
        signing = SigningKey(os.urandom(32))
        keyfiles.write_signing_key(keys / "signing.key", signing)
    try:
        identity = keyfiles.read_identity(keys / "recipient.key")
    except NotFound:
        identity = keyfiles.new_identity()
        keyfiles.write_identity(keys / "recipient.key", identity)
    folder = Folder(root, signing, identity)
    for path in (folder.spool, folder.packages, root / "artifacts"):
        path.mkdir(exist_ok=True, mode=0o700)
    return folder
