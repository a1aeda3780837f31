"""A hospital's grants and revocations: made from what its IT decided, signed by its root key. No files, no clock."""

from collections.abc import Iterable
from typing import Any

from koinon.domain.errors import Invalid
from koinon.domain.grant import Grant, Resources, Revocation
from koinon.domain.keys import SigningKey
from koinon.domain.manifest import Manifest

_DAY = 86_400


def grant(
    manifest: Manifest,
    root: SigningKey,
    site: str,
    *,
    dataset: str,
    vouched: Iterable[str],
    days: float,
    now: float,
    resources: Resources | None = None,
    min_sites: int = 3,
    min_others: int = 2,
) -> Grant:
    """The grant of `site`, signed by its `root`. Raises Invalid for what does not fit the manifest."""
    if manifest.root_of(site) != root.public:
        raise Invalid(f"The manifest does not name {site} with this root key.", where="manifest.members")
    peers: dict[str, Any] = {}
    for peer in vouched:
        if peer == site:
            continue
        peers[peer] = manifest.root_of(peer)
        if peers[peer] is None:
            raise Invalid(f"{peer} is not a member of {manifest.name}.", where="vouched")
    return Grant.of(
        {
            "manifest": manifest.digest(),
            "site": site,
            "not_before": int(now) - 1,
            "expires": int(now + days * _DAY),
            "dataset": dataset,
            "vouched": peers,
            "min_sites": min_sites,
            "min_others": min_others,
            "resources": (resources or Resources()).model_dump(),
        },
        where="grant",
    ).signed(root)


def revocation(given: Grant, root: SigningKey, *, now: float) -> Revocation:
    """Ends every grant of the project made until now, and `given` even if the clock is behind the one that granted."""
    return Revocation(manifest=given.manifest, site=given.site, time=max(int(now), given.not_before)).signed(root)
