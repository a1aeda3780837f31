"""What hub and sites say to each other. Binary values are hex (keys, hashes, shares) or base64url (sealed).

Each site sends one bundle per phase of an attempt; each bundle is signed by the site's operational key
and bound to the attempt's context. See docs/protocol.md.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from koinon.domain import canonical
from koinon.domain.ids import Hash, Name, PublicKey, RunId
from koinon.domain.keys import Certificate, Signed, Wire
from koinon.domain.parameters import Parameters
from koinon.domain.run import Kind, Phase

PROTOCOL = 1
PART_BYTES = 64 * 2**20

Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]*$", max_length=256)]
Base64 = Annotated[str, StringConstraints(pattern=r"^[-A-Za-z0-9_=]*$", max_length=1024)]


class Opening(Wire):
    """All that is fixed before any key of an attempt is drawn."""

    protocol: int = PROTOCOL
    manifest: Hash
    run: RunId
    round: int = Field(ge=0)
    attempt: int = Field(ge=1)
    kind: Kind
    parameters: Parameters
    model: Hash | None  # plaintext hash of the global model; None in round 0
    base: int | None = None  # the round that committed that model
    invited: tuple[Name, ...]
    audit: Hash  # head of the run's event chain


class InitVote(Signed):
    """Round 0: the hash of the first weights as this site built them."""

    purpose = "init"
    opening: Hash
    site: Name
    sha256: Hash


class Ballot(Wire):
    """A site's InitVote, and the certificate of the key that signed it."""

    certificate: Certificate
    vote: InitVote


class Keys(Signed):
    """Two ephemeral X25519 keys and a commitment to the self-mask seed. Says: my update is durable."""

    purpose = "keys"
    opening: Hash
    site: Name
    mask_key: PublicKey
    share_key: PublicKey
    seed_commitment: Hash


class Participant(Wire):
    certificate: Certificate
    keys: Keys


class Roster(Wire):
    """The sites of an attempt, sorted by name. `first` are the sites of the round's first attempt.

    n = len(first); c sites may collude with the hub; t shares open; k is the degree of the mask graph.
    """

    participants: tuple[Participant, ...]
    first: tuple[Name, ...]
    c: int
    t: int
    k: int

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(p.keys.site for p in self.participants)

    @property
    def n(self) -> int:
        return len(self.first)


def context(opening: Opening, roster: Roster) -> str:
    """The one hash that all sites of an attempt must share (PROTECTION.md, Context), in hex."""
    return canonical.digest({"opening": opening.model_dump(), "roster": roster.model_dump()})


class Shares(Signed):
    """Per other participant: this site's shares for it, sealed to it."""

    purpose = "shares"
    context: Hash
    site: Name
    sealed: dict[Name, Base64]


class Masked(Signed):
    """The masked update is uploaded: its size in bytes, its BLAKE3 root, and the hash of whom it was masked with."""

    purpose = "masked"
    context: Hash
    site: Name
    size: int
    root: Hash
    sharers: Hash


class Survivors(Wire):
    """Who sent shares, and whose masked update (by root) is in the sum.

    `signatures` are those of the survivors' Masked messages, all of `size` bytes: they prove to every voter that each
    survivor masked with all sharers, so that the hub cannot show one site a smaller inbox and single it out.
    """

    context: Hash
    sharers: tuple[Name, ...]
    size: int
    roots: dict[Name, Hash]
    signatures: dict[Name, Hex]


class Vote(Signed):
    """A site's signature over one survivor set."""

    purpose = "survivors"
    context: Hash
    site: Name
    survivors: Hash


class Release(Signed):
    """For each sharer one share: of its seed if it survived, of its mask key if it dropped out."""

    purpose = "release"
    context: Hash
    site: Name
    survivors: Hash
    seeds: dict[Name, Hex]
    mask_keys: dict[Name, Hex]


class ArtifactRef(Wire):
    """A sealed artifact by its name (hash of its sealed bytes), its size and the hash of its plaintext."""

    name: Hash
    bytes: int
    plaintext: Hash


class Task(Wire):
    """What the hub asks of a site now. Only the fields of the phase are set."""

    opening: Opening
    phase: Phase
    deadline: float
    model: ArtifactRef | None = None
    upload: bool = False  # round 0: this site is asked for the agreed first weights,
    ballots: tuple[Ballot, ...] = ()  # on which these sites agreed
    counted: int | None = None  # Scaffold: the newest round in whose sum this site's control variate is
    roster: Roster | None = None
    inbox: dict[Name, Base64] | None = None
    survivors: Survivors | None = None
    votes: tuple[Vote, ...] = ()


class Trouble(Wire):
    """All that may cross from a site about an error: no text of an exception, no value of a record."""

    code: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
    error: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,99}$")] = "Error"
    place: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./-]{0,100}(:[0-9]{1,6})?$")] = ""
    names: tuple[Annotated[str, Field(max_length=128)], ...] = Field(default=(), max_length=20)
    shapes: tuple[tuple[int, ...], ...] = Field(default=(), max_length=8)
    incident: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]


class SiteReport(Wire):
    """Instead of a bundle: this site cannot do the phase, and why."""

    opening: Hash
    site: Name
    trouble: Trouble


class SiteStatus(Wire):
    """Sent with every long-poll, so that waits can say for whom and why."""

    protocol: int = PROTOCOL
    version: str
    doing: Annotated[str, StringConstraints(max_length=80)] = "idle"
    disk_free: int = 0
    clock: float = 0.0
