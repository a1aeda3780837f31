"""Bodies that sites send, as the OpenAPI document shows them. Keys, hashes and signatures are made up."""

from pydantic import Field

from koinon.domain import wire
from koinon.domain.ids import Name, PublicKey
from koinon.domain.keys import Certificate, Wire


class Enrolment(Wire):
    """`token` as the hub's operator handed it out; `certificate` of the agent's keys, signed by `root`."""

    token: str = Field(min_length=16, max_length=256)
    site: Name
    root: PublicKey
    certificate: Certificate


BUNDLES = (wire.InitVote, wire.Keys, wire.Shares, wire.Masked, wire.Vote, wire.Release)

_HASH, _SIGNATURE = "3b" * 32, "5c" * 64
CERTIFICATE = {
    "site": "lyon",
    "epoch": 1,
    "signing": "1a" * 32,
    "recipient": "age1" + "q" * 58,
    "not_before": 1_800_000_000,
    "not_after": 1_830_000_000,
    "signature": _SIGNATURE,
}
ENROLMENT = {"token": "one-time-token-of-the-operator", "site": "lyon", "root": "2b" * 32, "certificate": CERTIFICATE}
STATUS = {"protocol": wire.PROTOCOL, "version": "0.1.0", "doing": "training", "disk_free": 10**11, "clock": 1.8e9}
KEYS = {
    "opening": _HASH,
    "site": "lyon",
    "mask_key": "4d" * 32,
    "share_key": "6e" * 32,
    "seed_commitment": "7f" * 32,
    "signature": _SIGNATURE,
}
REPORT = {
    "opening": _HASH,
    "site": "lyon",
    "trouble": {
        "code": "shape",
        "error": "RuntimeError",
        "place": "model.py:9",
        "names": ["age"],
        "shapes": [[32, 12], [13, 1]],
        "incident": "0123456789ab",
    },
}
GRANT = {
    "manifest": _HASH,
    "site": "lyon",
    "not_before": 1_800_000_000,
    "expires": 1_830_000_000,
    "dataset": "heart",
    "vouched": {"lille": "8a" * 32, "nice": "9b" * 32},
    "signature": _SIGNATURE,
}
REVOCATION = {"manifest": _HASH, "site": "lyon", "time": 1_810_000_000, "signature": _SIGNATURE}
