"""First weights leave a site only if a quorum of members, itself among them, signed for exactly the same ones."""

from typing import Any

import pytest

from koinon.domain import canonical
from koinon.domain.errors import Refused
from koinon.domain.keys import Certificate, SigningKey
from koinon.domain.run import Kind
from koinon.domain.wire import Ballot, InitVote
from koinon.protection import ballots
from tests.unit.agent.openings import NOW, SITE, opening
from tests.unit.domain import manifests

MANIFEST = manifests.build()
ROOTS = {member.site: member.root for member in MANIFEST.members}
OPENING = opening(MANIFEST, round=0, kind=Kind.INIT, model=None, base=None)
BUILT, OTHER = canonical.digest("the weights"), canonical.digest("others")
AGENT = {name: SigningKey(bytes([index + 101]) * 32) for index, name in enumerate(manifests.NAMES)}


def ballot(site: str, *, signer: SigningKey | None = None, root: SigningKey | None = None, **changes: Any) -> Ballot:
    given: dict[str, Any] = {
        "opening": OPENING.digest(),
        "site": site,
        "sha256": BUILT,
        "not_after": int(NOW) + 10,
    } | changes
    certificate = Certificate(
        site=site,
        epoch=1,
        signing=AGENT[site].public,
        recipient="",
        not_before=0,
        not_after=given.pop("not_after"),
    ).signed(root or manifests.ROOTS[site])
    return Ballot(certificate=certificate, vote=InitVote.of(given).signed(signer or AGENT[site]))


def require(shown: list[Ballot], min_sites: int = 3) -> None:
    ballots.require(shown, OPENING, BUILT, site=SITE, roots=ROOTS, min_sites=min_sites, now=NOW)


def test_a_quorum_is_enough() -> None:
    assert ballots.needed(4, 3) == 3
    require([ballot(site) for site in ("lille", "lyon", "nice")])
    require([ballot("lille", sha256=OTHER), *(ballot(site) for site in ("lyon", "nantes", "nice"))])


def test_too_few_or_without_its_own_vote_is_refused() -> None:
    for shown in ([], ["lyon"], ["lyon", "nice"], ["lyon", "nice", "nice"], ["lille", "nantes", "nice"]):
        with pytest.raises(Refused):
            require([ballot(site) for site in shown])
    with pytest.raises(Refused, match="4 are needed"):
        require([ballot(site) for site in ("lille", "lyon", "nice")], min_sites=4)


@pytest.mark.parametrize(
    "bad",
    [
        ballot("nice", sha256=OTHER),
        ballot("nice", opening=OTHER),
        ballot("nice", signer=AGENT["lyon"]),
        ballot("nice", root=manifests.ROOTS["lyon"]),
        ballot("nice", not_after=int(NOW) - 1),
        ballot("nice").model_copy(update={"certificate": ballot("lyon").certificate}),
    ],
)
def test_a_ballot_that_does_not_verify_counts_for_nothing(bad: Ballot) -> None:
    require([ballot("lyon"), ballot("lille"), ballot("nantes"), bad])
    with pytest.raises(Refused, match="2 sites"):
        require([ballot("lyon"), ballot("lille"), bad])


def test_only_invited_members_count() -> None:
    shown = [ballot(site) for site in ("lille", "lyon", "nice")]
    fewer = {site: root for site, root in ROOTS.items() if site != "nice"}
    assert ballots.voters(shown, OPENING, BUILT, roots=fewer, now=NOW) == {"lille", "lyon"}
