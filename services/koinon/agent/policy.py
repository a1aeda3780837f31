"""May this run here, now? Pure: the site's documents, the task's opening, the journal's counts and the clock go in.

The hub is not trusted to keep a manifest's limits: the site refuses a run outside them (DESIGN.md, One root of trust).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from koinon.domain import canonical, parameters, wire
from koinon.domain.errors import Invalid, Refused, Untrusted
from koinon.domain.grant import Grant, Revocation
from koinon.domain.manifest import Manifest
from koinon.domain.run import Kind

CLOCK_SECONDS = 300  # how far this clock and the hub's may be apart
VOID_ROUNDS = 10  # how many rounds of a run may be void here


class Refusal(Refused):
    """A refusal with the short code that crosses to the hub, and the parameters it is about."""

    def __init__(self, code: str, what: str, *, todo: str = "", names: tuple[str, ...] = ()) -> None:
        super().__init__(what, where=f"policy.{code}", todo=todo)
        self.code = code
        self.names = names


@dataclass(frozen=True)
class Known:
    """What the journal remembers of a run: its parameters' hash, its newest round, the openings' hashes by round."""

    parameters: str
    newest: int
    attempts: Mapping[tuple[int, int], str]


@dataclass(frozen=True)
class Counts:
    """Over the project's life at this site: distinct rounds trained or scored, distinct runs that trained or scored.

    A run is a release from its first round on: each of its sums is opened to the hub.
    """

    rounds: int
    releases: int
    counted: bool = False  # this (run, round) is among the rounds
    released: bool = False  # this run is among the releases
    inits: int = 0  # distinct runs whose first weights were built
    scored: int = 0  # distinct rounds in which this run was scored, this one not counted


def read_manifest(text: bytes, name: str) -> Manifest:
    """The manifest whose hash is `name`. Raises Refusal if it is another, or breaks a rule of manifests."""
    try:
        manifest = Manifest.parse(text, where="manifest")
    except Invalid as error:
        raise Refusal("bad_manifest", str(error), todo="The project's author must create it anew.") from None
    if manifest.digest() != name:
        raise Refusal("wrong_manifest", f"The manifest does not have the hash {name[:12]}… that was asked for.")
    return manifest


def check_grant(
    manifest: Manifest, name: str, site: str, grant: Grant | None, revocation: Revocation | None, *, now: float
) -> Grant:
    """The grant, if this site's root made it for `name`, it is valid now and not revoked. Raises Refusal."""
    root = manifest.root_of(site)
    if root is None:
        raise Refusal("not_a_member", f"{site} is not a member of {manifest.name}.")
    if grant is None:
        raise Refusal("no_grant", f"{site} has not granted {manifest.name}.", todo=f"koinon grant {manifest.name}")
    try:
        grant.check(root)
        if revocation is not None:
            revocation.check(root)
    except Untrusted as error:
        raise Refusal("bad_grant", str(error), todo="Grant again with the root key the manifest names.") from None
    if grant.manifest != name or grant.site != site:
        raise Refusal("bad_grant", "The grant is for another project or another site.")
    if revocation is not None and revocation.manifest == name and grant.not_before <= revocation.time:
        raise Refusal("revoked", f"{site} revoked its grant of {manifest.name}.")
    check_time(grant, now)
    return grant


def check_time(grant: Grant, now: float) -> None:
    """Raises Refusal outside the grant's time."""
    try:
        grant.check_now(now)
    except Refused as error:
        code = "grant_expired" if now >= grant.expires else "grant_not_yet"
        raise Refusal(code, error.what, todo=error.todo) from None


def check_clock(offset: float) -> None:
    """`offset`: this clock minus the hub's, in seconds. Raises Refusal if they are too far apart."""
    if abs(offset) > CLOCK_SECONDS:
        side = "ahead of" if offset > 0 else "behind"
        raise Refusal("clock_off", f"This clock is {abs(offset):.0f} s {side} the hub's.", todo="Set it (NTP).")


def vouched(manifest: Manifest, grant: Grant) -> frozenset[str]:
    """The peers whose root key this hospital compared, and which the manifest names with the same key."""
    return frozenset(s for s, root in grant.vouched.items() if s != grant.site and manifest.root_of(s) == root)


def minimum(manifest: Manifest, grant: Grant) -> tuple[int, int]:
    """(min_sites, min_others), each the larger of the manifest's and the site's own."""
    own = manifest.protection
    return max(own.min_sites, grant.min_sites), max(own.min_others, grant.min_others)


def check_opening(
    manifest: Manifest, grant: Grant, opening: wire.Opening, *, known: Known | None, counts: Counts, floor: int = -1
) -> None:
    """Raises Refusal unless this attempt lies within manifest and grant and fits what the journal knows.

    `floor`: rounds of this run up to it were opened before the journal's epoch (see `marker`).
    """
    _check_form(manifest, grant, opening)
    _check_parameters(manifest, opening)
    if opening.round <= floor:
        raise Refusal("old_epoch", f"Round {opening.round} was opened before this site's journal was restored.")
    if known is not None:
        _check_history(opening, known)
    _check_counts(manifest, opening, counts)
    if opening.kind is not Kind.INIT:
        size = manifest.upload_bytes(opening.kind, opening.parameters)
        if size > manifest.limits.round_bytes:
            raise Refusal(
                "round_too_large", f"A round needs {size} bytes, the manifest allows {manifest.limits.round_bytes}."
            )


def _check_counts(manifest: Manifest, opening: wire.Opening, counts: Counts) -> None:
    limits, last = manifest.limits, int(opening.parameters["rounds"]) + 1
    if opening.round > last + VOID_ROUNDS:
        raise Refusal("run_too_long", f"Round {opening.round} of a run that ends with round {last}.")
    if opening.kind is Kind.EVALUATE and counts.scored > VOID_ROUNDS:
        raise Refusal("scored_before", f"Run {opening.run} was scored {counts.scored} times.")
    if opening.kind is Kind.INIT:
        if not counts.counted and counts.inits >= limits.rounds:
            raise Refusal("rounds_spent", f"{counts.inits} runs of {manifest.name} began here, the limit.")
        return
    if not counts.counted and counts.rounds >= limits.rounds:
        raise Refusal("rounds_spent", f"{limits.rounds} rounds of {manifest.name} have run here, the limit.")
    if not counts.released and counts.releases >= limits.releases:
        raise Refusal("releases_spent", f"{limits.releases} results of {manifest.name} were made, the limit.")


def _check_form(manifest: Manifest, grant: Grant, opening: wire.Opening) -> None:
    invited = opening.invited
    if opening.protocol != wire.PROTOCOL:
        raise Refusal("protocol", f"Protocol {opening.protocol} is not spoken here; {wire.PROTOCOL} is.")
    if grant.site not in invited:
        raise Refusal("not_invited", f"{grant.site} is not invited.")
    if len(set(invited)) != len(invited) or any(manifest.root_of(site) is None for site in invited):
        raise Refusal("bad_opening", "The invited sites are not distinct members of the manifest.")
    least, others = minimum(manifest, grant)
    if len(invited) < max(least, others + 1):
        raise Refusal("too_few_sites", f"{len(invited)} sites are invited; {max(least, others + 1)} are needed here.")
    if opening.kind is Kind.INIT:
        good = opening.round == 0 and opening.model is None and opening.base is None
    else:
        good = opening.model is not None and opening.base is not None and 0 <= opening.base < opening.round
    if not good:
        raise Refusal("bad_opening", "Round, model and base of the opening do not fit together.")


def _check_parameters(manifest: Manifest, opening: wire.Opening) -> None:
    try:
        complete = parameters.complete(manifest.parameters, opening.parameters)
    except Invalid as error:
        name = error.where.removeprefix("parameters.")
        names = (name,) if name in manifest.parameters else ()
        raise Refusal("outside_limits", f"{error.where}: {error.what}", todo=error.todo, names=names) from None
    if canonical.digest(complete) != canonical.digest(opening.parameters):
        raise Refusal("outside_limits", "The parameters of the run are not complete.")


def _check_history(opening: wire.Opening, known: Known) -> None:
    if canonical.digest(opening.parameters) != known.parameters:
        raise Refusal("changed_run", f"Run {opening.run} came with other parameters before.")
    before = known.attempts.get((opening.round, opening.attempt))
    if before is not None and before != opening.digest():
        raise Refusal(
            "changed_attempt", f"Round {opening.round}, attempt {opening.attempt} was opened otherwise before."
        )
    if before is None and opening.round < known.newest:
        raise Refusal("hub_behind", f"Round {opening.round} comes after round {known.newest}: the hub went back.")
    newest = max((attempt for number, attempt in known.attempts if number == opening.round), default=0)
    if before is None and opening.attempt <= newest:
        raise Refusal("hub_behind", f"Attempt {opening.attempt} comes after attempt {newest}: the hub went back.")
