"""What `koinon login` and `koinon key new` leave in the user's configuration folder, in files of mode 0600.

The folder is KOINON_CONFIG if that is set. KOINON_HUB, KOINON_TOKEN and KOINON_CA are a login for scripts.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import platformdirs

from koinon.artifacts import keyfiles
from koinon.domain import errors


@dataclass(frozen=True)
class Login:
    """A hub, the token for it, the signing key it showed when the user compared its fingerprint, and the file of the
    authority that its certificate is by, if not a public one."""

    hub: str
    token: str = field(repr=False)
    signing: str = ""
    ca: str = ""

    @property
    def authority(self) -> Path | None:
        return Path(self.ca) if self.ca else None


def folder() -> Path:
    return Path(os.environ.get("KOINON_CONFIG") or platformdirs.user_config_dir("koinon"))


def save_login(login: Login, path: Path | None = None) -> Path:
    path = path or folder() / "login.json"
    keyfiles.write_secret(path, json.dumps(asdict(login), indent=1) + "\n", replace=True)
    return path


def load_login() -> Login:
    """Raises Unauthenticated if nobody logged in here."""
    if hub := os.environ.get("KOINON_HUB"):
        return Login(hub=hub, token=os.environ.get("KOINON_TOKEN", ""), ca=os.environ.get("KOINON_CA", ""))
    path = folder() / "login.json"
    try:
        return Login(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise errors.Unauthenticated(
            "You are not logged in to a hub.", todo="koinon login https://HUB, or koinon up for one on this machine"
        ) from None
    except (ValueError, TypeError):
        raise errors.Invalid("This file is damaged.", where=str(path), todo="koinon login https://HUB") from None


def identity_path() -> Path:
    """Where the researcher's recipient key is: KOINON_KEY, or identity.age in the configuration folder."""
    return Path(os.environ.get("KOINON_KEY") or folder() / "identity.age")
