"""Round 0 in the open: first weights leave a site in the clear only if a quorum of members built the very same ones.

A tensor that research code made from one hospital's records is that hospital's alone: nobody else has its hash.
"""

from collections.abc import Iterable, Mapping

from koinon.domain.errors import Refused, Untrusted
from koinon.domain.wire import Ballot, Opening
from koinon.protection import graph


def needed(invited: int, min_sites: int) -> int:
    """How many of `invited` sites must have built the same first weights."""
    return max(graph.threshold(invited, graph.collusion(invited)), min_sites)


def voters(
    ballots: Iterable[Ballot], opening: Opening, sha256: str, *, roots: Mapping[str, str], now: float
) -> frozenset[str]:
    """The invited members whose agent, certified by its root at `now`, signed `sha256` for `opening`."""
    found = set()
    for ballot in ballots:
        certificate, vote = ballot.certificate, ballot.vote
        root = roots.get(vote.site)
        if root is None or vote.site not in opening.invited:
            continue
        if vote.opening != opening.digest() or vote.sha256 != sha256:
            continue
        try:
            certificate.check_for(root, vote.site, now)
            vote.check(certificate.signing)
        except Untrusted:
            continue  # counts for nothing; the others may do
        found.add(vote.site)
    return frozenset(found)


def require(
    ballots: Iterable[Ballot], opening: Opening, sha256: str, *,
    site: str, roots: Mapping[str, str], min_sites: int, now: float,
) -> None:  # fmt: skip
    """Raises Refused unless enough members, `site` among them, voted for the first weights with hash `sha256`."""
    found, least = voters(ballots, opening, sha256, roots=roots, now=now), needed(len(opening.invited), min_sites)
    if site not in found:
        raise Refused(f"The vote of {site} for these first weights is not shown.", where="task.ballots")
    if len(found) < least:
        raise Refused(
            f"{len(found)} sites are shown to have built the same first weights; {least} are needed here.",
            where="task.ballots",
        )
