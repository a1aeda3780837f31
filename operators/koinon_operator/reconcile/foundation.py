"""What all projects of a hospital stand on, kept before anything of theirs: walls first, then bounds, account,
tokens.
"""

import ipaddress
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from koinon.domain.errors import Forbidden, Invalid, NotFound
from koinon_operator.documents import Hospital
from koinon_operator.kinds import CONFIG_MAP, NETWORK_POLICY, SECRET, Object, kind_of
from koinon_operator.lookup import name_servers
from koinon_operator.names import RAY_SECRET, cluster, head, short
from koinon_operator.objects import accounts, bounds, denial, tokens, walls
from koinon_operator.status import Condition, false, true
from koinon_operator.world import World

TYPE = "Isolated"
_PROOFS = (CONFIG_MAP, SECRET)
"""What the proof and the tokens rest on: while someone else keeps changing that, neither counts."""


@dataclass(frozen=True)
class Foundation:
    """`secret`: of the hospital's Ray tokens. Without it nothing may be built, and if it `stops`, nothing may run.

    `wait`: seconds until a next try.
    """

    isolated: Condition
    secret: bytes | None = None
    wait: float | None = None
    stops: bool = False


def lay(world: World, home: str, hospital: Hospital, site: Object, manifests: Collection[str]) -> Foundation:
    """Keeps all of it; `manifests` are those that need a token. Raises what may work later."""
    work = world.work(home)
    if hospital.work != work:
        todo = "Its chart sets both from one value."
        return Foundation(
            false(TYPE, "WorkNamespaceMismatch", f"The operator serves {work}, the Site names {hospital.work}. {todo}")
        )
    try:
        kept = world.keeper.keep(walls.deny_all(work), about=site)
        if not kept.there:
            return _stop("PolicyContested", "Someone keeps removing deny-all.", kept.wait)
        opening = _opening(world, work, manifests)
        if opening is not None:
            return _foreign(world, site, opening)
        secret = _root_secret(world, home, site)
        for wanted in _rest(world, home, hospital, secret, manifests):
            kept = world.keeper.keep(wanted, about=site)
            if not kept.there and kind_of(wanted) in _PROOFS:
                what = f"{wanted['kind']} {wanted['metadata']['name']}"
                return _stop("Contested", f"Someone keeps changing the {what} in {work}.", kept.wait)
    except NotFound as error:
        message = f"{error.what} Create the namespace {work}; the chart koinon-site does."
        return Foundation(false(TYPE, "WorkNamespaceMissing", message), wait=10.0)
    except Forbidden as error:
        message = f"{error.what} Give the operator its Role in {work}; the chart koinon-site does."
        return Foundation(false(TYPE, "NotAllowed", message), wait=30.0)
    return Foundation(
        true(TYPE, "DenyAll", f"{work} denies all traffic but that of each project's own cluster."), secret
    )


def _stop(reason: str, message: str, wait: float) -> Foundation:
    return Foundation(false(TYPE, reason, f"{message} Nothing runs until that ends."), wait=wait or 1.0, stops=True)


def _opening(world: World, work: str, manifests: Iterable[str]) -> Object | None:
    """A policy that lets traffic through and is nobody's. Those of projects that are granted are kept as wanted."""
    kept = {name(short(manifest)) for manifest in manifests for name in (cluster, head)}
    found = (policy for policy in world.cache.select(NETWORK_POLICY, work) if policy["metadata"]["name"] not in kept)
    return next(filter(walls.is_foreign, found), None)


def _foreign(world: World, site: Object, policy: Object) -> Foundation:
    """Policies add up: one that lets through what the walls do not is a hole in them."""
    name, work = policy["metadata"]["name"], policy["metadata"]["namespace"]
    message = f"The NetworkPolicy {name} in {work} is not the operator's and lets traffic through. Delete it."
    world.recorder.warn(site, "ForeignPolicy", message)
    return Foundation(false(TYPE, "ForeignPolicy", f"{message} Nothing runs until then."), stops=True)


def _rest(world: World, home: str, hospital: Hospital, secret: bytes, manifests: Iterable[str]) -> Iterable[Object]:
    work = world.work(home)
    yield bounds.quota(work, hospital.quota)
    yield bounds.limits(work)
    yield accounts.account(work)
    yield denial.config_map(work, targets(world, home, hospital))
    yield tokens.work_secret(work, secret, manifests)


def targets(world: World, home: str, hospital: Hospital) -> list[str]:
    """Hub, API server, metadata address, DNS, the agent as a neighbour, and what the Site adds."""
    agent = urlsplit(world.settings.agent_url.format(namespace=home))
    agents = world.lookup.addresses(agent.hostname or "")
    servers = [address for address in name_servers() if not address.startswith("127.")]
    return [
        *denial.hub_targets(
            hospital.hub_url, hospital.hub_cidrs, world.lookup.addresses(urlsplit(hospital.hub_url).hostname or "")
        ),
        *_api_server(world),
        denial.METADATA,
        *denial.dns_targets(servers),
        *(denial.target(address, agent.port or 80) for address in agents),
        *hospital.probes,
    ]


def _api_server(world: World) -> list[str]:
    """Some clusters name it, and a Ray pod resolves no names."""
    host, port = world.kube.address
    try:
        known: Iterable[str] = [str(ipaddress.ip_address(host))]
    except ValueError:
        known = world.lookup.addresses(host)
    return [denial.target(address, port) for address in known]


def _root_secret(world: World, home: str, site: Object) -> bytes:
    """Made once; a new one makes new tokens, and those new pods."""
    found = world.cache.get(SECRET, home, RAY_SECRET) or _look(world, home)
    try:
        secret = tokens.read_root(found) if found else secrets.token_bytes(32)
    except Invalid as error:
        world.recorder.warn(site, "SecretReplaced", f"{error.what} A new one is made; clusters start anew.")
        secret = secrets.token_bytes(32)
    world.keeper.keep(tokens.root_secret(home, secret, owner=owner(site)), about=site)
    return secret


def _look(world: World, home: str) -> Object | None:
    """Before a new one is made for want of an old one."""
    try:
        return world.kube.get(SECRET, home, RAY_SECRET)
    except NotFound:
        return None


def owner(site: Object) -> Object:
    meta = site["metadata"]
    return {"apiVersion": site["apiVersion"], "kind": site["kind"], "name": meta["name"], "uid": meta["uid"]}
