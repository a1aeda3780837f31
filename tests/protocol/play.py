"""Four sites and an honest hub, for the tests that change one thing."""

from koinon.protection import hub as hubs
from tests.protocol import federation
from tests.protocol.federation import NOW, Member

WORDS = 32
League = dict[str, Member]


class Play:
    """Four sites (c = 1, t = 3) and an honest hub, advanced phase by phase."""

    def __init__(self, attempt: int = 1, league: League | None = None) -> None:
        self.league = league or federation.members(4, WORDS)
        self.roots = federation.roots(self.league)
        self.opening = federation.opening(list(self.league.values()), attempt=attempt)
        first = None if attempt == 1 else sorted(self.league)
        self.hub = hubs.HubAttempt(self.opening, self.roots, 4 * WORDS, first=first)
        self.keys = {name: member.join(self.opening) for name, member in self.league.items()}
        for name, keys in self.keys.items():
            self.hub.add_keys(keys, self.league[name].certificate, NOW)

    def share(self) -> "Play":
        self.shares = {name: m.share(self.hub.roster(), self.roots) for name, m in self.league.items()}
        for shares in self.shares.values():
            self.hub.add_shares(shares)
        return self

    def mask(self, *absent: str) -> "Play":
        self.share()
        self.uploads = {n: m.mask(self.hub.inbox(n)) for n, m in self.league.items() if n not in absent}
        for masked, _ in self.uploads.values():
            self.hub.add_masked(masked)
        return self

    def vote(self, *absent: str) -> "Play":
        self.mask(*absent)
        for name in self.uploads:
            self.hub.add_vote(self.league[name].vote(self.hub.survivors(), self.league))
        return self

    def release(self, *absent: str) -> "Play":
        self.vote(*absent)
        self.releases = {name: self.league[name].release(self.hub.votes()) for name in self.uploads}
        for release in self.releases.values():
            self.hub.add_release(release)
        return self
