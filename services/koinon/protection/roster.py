"""The roster of an attempt: what hub and sites check alike, so that neither relies on the other."""

from collections.abc import Collection, Mapping, Sequence

from koinon.domain import canonical
from koinon.domain.errors import Refused, Untrusted
from koinon.domain.wire import Masked, Opening, Participant, Roster, Survivors
from koinon.protection import graph, keying


def build(participants: Sequence[Participant], first: Sequence[str] | None) -> Roster:
    """The roster of those who finished training; `first` are the sites of the round's first attempt, None in it."""
    ordered = sorted(participants, key=lambda participant: participant.keys.site)
    names = tuple(first) if first is not None else tuple(p.keys.site for p in ordered)
    n = len(names)
    c = graph.collusion(n)
    return Roster(participants=tuple(ordered), first=names, c=c, t=graph.threshold(n, c), k=graph.degree(n, c))


def check_participant(participant: Participant, opening: Opening, roots: Mapping[str, str], now: float) -> None:
    """Raises Untrusted unless a member's agent, certified by its root at `now`, signed these keys for `opening`."""
    certificate, keys = participant.certificate, participant.keys
    root = roots.get(keys.site)
    if root is None or keys.site not in opening.invited:
        raise Untrusted(f"{keys.site} is not invited to this round.")
    certificate.check_for(root, keys.site, now)
    keys.check(certificate.signing)
    if keys.opening != opening.digest():
        raise Untrusted(f"The keys of {keys.site} are for another attempt.")
    keying.require_point(keys.mask_key)
    keying.require_point(keys.share_key)


def check(roster: Roster, opening: Opening, roots: Mapping[str, str], now: float, first: Sequence[str] | None) -> None:
    """Raises Untrusted or Refused unless `roster` is exactly what an honest hub may show for `opening`.

    `first` is the round's first roster as this site already knows it, None if it saw none.
    """
    expected = build(roster.participants, None if opening.attempt == 1 else roster.first)
    if roster != expected or len(set(roster.sites)) != len(roster.sites):
        raise Untrusted("The roster is not in order, or its thresholds are not those of its sites.")
    if first is not None and tuple(first) != roster.first:
        raise Refused("The roster names other sites for the round's first attempt than an earlier one did.")
    if list(roster.first) != sorted(set(roster.first)) or not set(roster.sites) <= set(roster.first):
        raise Untrusted("The roster has sites that were not in the round's first attempt.")
    for participant in roster.participants:
        check_participant(participant, opening, roots, now)
    require_distinct(roster.participants)
    require_crowd(roster, roster.sites)


def require_distinct(participants: Sequence[Participant]) -> None:
    """Raises Untrusted if a site announced a key twice, or another's as its own."""
    keys = [key for p in participants for key in (p.keys.mask_key, p.keys.share_key)]
    if len(set(keys)) != len(keys):
        raise Untrusted("Two keys of the roster are the same.")


def require_crowd(roster: Roster, sites: Collection[str]) -> None:
    """Raises Refused unless a sum over `sites` can be opened and hides each honest one among all honest ones."""
    if len(sites) < roster.t:
        raise Refused(f"{len(sites)} sites are left; it takes {roster.t} to open a sum.")
    missing = len(roster.sites) - len(sites)
    if not graph.stays_connected(len(roster.sites), roster.k, roster.c, missing):
        raise Refused(f"{missing} sites are missing, too many for the masks to hold the others together.")


def sharers_hash(sharers: Collection[str]) -> str:
    """What an upload is signed with, so that all survivors have masked with the same peers."""
    return canonical.digest(sorted(sharers))


def check_uploads(survivors: Survivors, roster: Roster) -> None:
    """Raises Untrusted unless every survivor itself signed that its upload is masked with all sharers."""
    sharers = sharers_hash(survivors.sharers)
    for participant in roster.participants:
        site = participant.keys.site
        if site in survivors.roots:
            Masked(
                context=survivors.context,
                site=site,
                size=survivors.size,
                root=survivors.roots[site],
                sharers=sharers,
                signature=survivors.signatures[site],
            ).check(participant.certificate.signing)
