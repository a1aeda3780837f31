"""An honest hub over a bad network: messages come late, twice, in any order or never; everybody crashes.

Hub and sites forget everything but what they stored. Sites may vanish for good down to t of them. Whatever happened,
the sum that opens in the end is the plain sum of the stored survivors, each counted once.
"""

from collections import defaultdict
from collections.abc import Callable

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from koinon.domain import wire
from koinon.domain.errors import Conflict
from koinon.domain.keys import Certificate, Signed
from koinon.domain.run import Phase
from koinon.protection import hub as hubs
from koinon.protection import masking
from tests.protocol import federation
from tests.protocol.federation import NOW

WORDS = 16
NAMES = tuple(f"s{index:02}" for index in range(6))  # c = 1, t = 4
ORDER = [Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.SURVIVORS, Phase.UNMASK]
MESSAGES: dict[Phase, type[Signed]] = {
    Phase.KEYS: wire.Keys,
    Phase.SHARES: wire.Shares,
    Phase.MASKED: wire.Masked,
    Phase.SURVIVORS: wire.Vote,
    Phase.UNMASK: wire.Release,
}


class Network(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.league = federation.members(len(NAMES), WORDS)
        self.roots = federation.roots(self.league)
        self.here = list(NAMES)
        self.flying: list[tuple[int, Phase, str, str]] = []  # attempt, phase, site, message
        self.words: dict[str, masking.Words] = {}  # the spool, by root
        self.first: tuple[str, ...] | None = None
        self.attempt, self.failures = 0, 0
        self.next_attempt()

    # -- the hub: what is durable is here, `hub` is memory ---------------------------------------------------------

    def next_attempt(self) -> None:
        self.attempt += 1
        self.opening = federation.opening(list(self.league.values()), attempt=self.attempt)
        self.phase = Phase.KEYS
        self.roster: wire.Roster | None = None
        self.survivors: wire.Survivors | None = None
        self.stored: dict[Phase, dict[str, str]] = defaultdict(dict)
        self.hub = self.rebuilt()

    def rebuilt(self) -> hubs.HubAttempt:
        hub = hubs.HubAttempt(
            self.opening,
            self.roots,
            4 * WORDS,
            first=self.first if self.attempt > 1 else None,
            roster=self.roster,
            survivors=self.survivors,
        )
        for phase in self.unsettled():
            for text in self.stored[phase].values():
                _add(hub, phase, text, self.league)
        return hub

    def unsettled(self) -> list[Phase]:
        """What a hub reads again: a stored roster stands for the keys, stored survivors for shares and uploads."""
        if self.survivors is not None:
            return [Phase.SURVIVORS]
        return [Phase.SHARES, Phase.MASKED] if self.roster is not None else [Phase.KEYS]

    def receive(self, attempt: int, phase: Phase, name: str, text: str) -> None:
        if attempt != self.attempt or phase is not self.phase:
            return  # a gateway answers that this is not asked for now
        _add(self.hub, phase, text, self.league)
        if phase is not Phase.UNMASK:  # a share in the clear is never stored
            self.stored[phase].setdefault(name, text)

    def answered(self) -> int:
        return len(self.stored[self.phase]) if self.phase is not Phase.UNMASK else 0

    def go_on(self) -> None:
        if self.phase is Phase.KEYS:
            self.roster = self.hub.roster()
            self.first = self.first or self.roster.first
        elif self.phase is Phase.SHARES:
            self.hub.sharers()
        elif self.phase is Phase.MASKED:
            self.survivors = self.hub.survivors()
        self.phase = ORDER[ORDER.index(self.phase) + 1]

    def needed(self) -> int:
        return self.roster.t if self.roster else 4

    # -- rules -----------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), lost=st.booleans())
    def poll(self, name: str, lost: bool) -> None:
        """A site asks for its task and does it; its answer flies, or is lost."""
        if name in self.here and not lost:
            self.act(name, lambda text: self.flying.append((self.attempt, self.phase, name, text)))
        elif name in self.here:
            self.act(name, lambda _: None)

    @rule()
    def everybody_polls(self) -> None:
        for name in self.here:
            self.poll(name, False)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:
        index = data.draw(st.integers(0, len(self.flying) - 1))
        self.receive(*(self.flying[index] if again else self.flying.pop(index)))

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def deliver_all(self, data: st.DataObject) -> None:
        for message in data.draw(st.permutations(self.flying)):
            self.receive(*message)

    @precondition(lambda self: self.phase is not Phase.UNMASK)
    @rule()
    def phase_goes_well(self) -> None:
        """Without it, random walks hardly ever reach the last phases."""
        self.everybody_polls()
        for message in self.flying:
            self.receive(*message)
        if self.answered() >= self.needed():
            self.go_on()

    @rule()
    def hub_crashes(self) -> None:
        self.hub = self.rebuilt()

    @precondition(lambda self: len(self.here) > 4)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        self.here.remove(data.draw(st.sampled_from(self.here)))

    @precondition(lambda self: self.phase is not Phase.UNMASK and self.answered() >= self.needed())
    @rule()
    def deadline(self) -> None:
        self.go_on()

    @precondition(lambda self: self.phase not in (Phase.KEYS, Phase.UNMASK) and self.failures < 2)
    @rule()
    def fail(self) -> None:
        """Before anything was released the hub may start over; the update stays."""
        self.failures += 1
        self.next_attempt()

    # -- sites -----------------------------------------------------------------------------------------------------

    def act(self, name: str, send: Callable[[str], None]) -> None:
        """What an agent does with the task it is shown. One that missed a phase waits for the next attempt."""
        member = self.league[name]
        try:
            if self.phase is Phase.KEYS:
                if self.first is None or name in self.first:
                    send(member.join(self.opening).encode().decode())
            elif self.roster is None or name not in self.roster.sites:
                return
            elif self.phase is Phase.SHARES:
                send(member.share(self.roster, self.roots).encode().decode())
            elif self.phase is Phase.MASKED and name in self.hub.sharers():
                masked, words = member.mask(self.hub.inbox(name))
                assert np.array_equal(self.words.setdefault(masked.root, words), words)
                send(masked.encode().decode())
            elif self.phase is Phase.SURVIVORS and member.state.held is not None:
                send(member.vote(self.hub.survivors(), NAMES).encode().decode())
            elif self.phase is Phase.UNMASK and member.state.survivors is not None:
                send(member.release(self.hub.votes()).encode().decode())
        except Conflict:  # it has not seen an earlier phase of this attempt
            assert self.missed(name)

    def missed(self, name: str) -> bool:
        phase = ORDER[ORDER.index(self.phase) - 1]
        return self.phase is not Phase.KEYS and name not in self.stored[phase]

    def teardown(self) -> None:
        """From here on the network is fair: whoever is still here answers, and the round ends well if it can."""
        for _ in range(3 * len(ORDER)):
            if len(set(self.here) & set(self.first or NAMES)) < self.needed() or self.is_void():
                hypothesis.event("too few are left")
                assert not self.hub.can_open
                return
            self.flying.clear()
            self.everybody_polls()
            for message in self.flying:
                self.receive(*message)
            if self.phase is Phase.UNMASK:
                break
            if self.answered() >= self.needed():
                self.go_on()
            else:
                self.next_attempt()  # too many of those who are left had missed an earlier phase
        assert self.hub.can_open
        survivors = self.hub.survivors()
        total = np.zeros(WORDS, np.uint32)
        for root in survivors.roots.values():
            total += self.words[root]
        masking.remove(total, self.hub.open_keys())
        np.testing.assert_array_equal(total, federation.plain_sum(self.league[name] for name in survivors.roots))
        hypothesis.event(f"{len(survivors.roots)} survivors, attempt {min(self.attempt, 3)}")

    def is_void(self) -> bool:
        """In the last phase only sites that voted can release."""
        voters = [name for name in self.here if name in self.stored[Phase.SURVIVORS]]
        return self.phase is Phase.UNMASK and not self.hub.can_open and len(voters) < self.needed()


def _add(hub: hubs.HubAttempt, phase: Phase, text: str, league: dict[str, federation.Member]) -> None:
    message = MESSAGES[phase].parse(text)
    if isinstance(message, wire.Keys):
        certificate: Certificate = league[message.site].certificate
        hub.add_keys(message, certificate, NOW)
    elif isinstance(message, wire.Shares):
        hub.add_shares(message)
    elif isinstance(message, wire.Masked):
        hub.add_masked(message)
    elif isinstance(message, wire.Vote):
        hub.add_vote(message)
    elif isinstance(message, wire.Release):
        hub.add_release(message)


TestNetwork = Network.TestCase
TestNetwork.settings = hypothesis.settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate],  # shrinking takes minutes
    suppress_health_check=list(hypothesis.HealthCheck),
)
