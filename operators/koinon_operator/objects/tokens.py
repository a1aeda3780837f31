"""Ray's tokens: one a project, derived from one secret of the hospital, so that none travels to the agent.

The work namespace holds them in one Secret with one key a project. So the operator needs no right to read any other
Secret there: RBAC knows names, not labels.
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping

from koinon.domain.errors import Invalid
from koinon_operator.kinds import SECRET, Object
from koinon_operator.names import RAY_SECRET, labels, short

KEY = "secret"
_LEAST = 32


def token(secret: bytes, manifest: str) -> str:
    """HMAC-SHA256 over the manifest's hash, hex. The agent computes the same."""
    return hmac.new(secret, manifest.encode("ascii"), hashlib.sha256).hexdigest()


def root_secret(home: str, secret: bytes, *, owner: Object) -> Object:
    """The hospital's secret, mounted by the agent; it goes with the Site."""
    made = SECRET.make(home, RAY_SECRET, {"type": "Opaque", "data": {KEY: _base64(secret)}}, labels=labels())
    made["metadata"]["ownerReferences"] = [owner]
    return made


def read_root(found: Object) -> bytes:
    """Raises Invalid if the Secret does not hold one that is long enough."""
    data: Mapping[str, str] = found.get("data") or {}
    try:
        secret = base64.b64decode(data.get(KEY, ""), validate=True)
    except ValueError:
        secret = b""
    if len(secret) < _LEAST:
        raise Invalid(f"The Secret {RAY_SECRET} has no key {KEY} of {_LEAST} bytes.", todo="Delete it.")
    return secret


def work_secret(work: str, secret: bytes, manifests: Iterable[str]) -> Object:
    data = {short(manifest): _base64(token(secret, manifest).encode()) for manifest in sorted(manifests)}
    body: Object = {"type": "Opaque", "data": data} if data else {"type": "Opaque"}
    return SECRET.make(work, RAY_SECRET, body, labels=labels())


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
