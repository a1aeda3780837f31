"""What custom resources say, read: a Grant as a `Consent`, a Site as a `Hospital`. Nothing is verified here.

The signed documents in a Grant are read by `koinon.domain.objects`, which the command that makes them uses too.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from koinon.domain import objects
from koinon.domain.errors import Invalid
from koinon.domain.grant import Grant, Revocation
from koinon_operator import quantity
from koinon_operator.kinds import Object


@dataclass(frozen=True)
class Consent:
    """A Grant as the hospital's IT applied it."""

    name: str
    uid: str
    grant: Grant
    revocation: Revocation | None
    document: str | None

    @property
    def manifest(self) -> str:
        return self.grant.manifest


@dataclass(frozen=True)
class Dataset:
    name: str
    claim: str
    sub_path: str


@dataclass(frozen=True)
class Quota:
    """What all projects of a hospital get together: cores, bytes, GPUs, pods."""

    cpu: Decimal
    memory: int
    gpus: int
    pods: int


@dataclass(frozen=True)
class Hospital:
    """A Site's wishes."""

    name: str
    uid: str
    root: str
    work: str
    hub_url: str
    hub_cidrs: tuple[str, ...]
    image: str
    pull_secrets: tuple[str, ...]
    datasets: Mapping[str, Dataset]
    quota: Quota
    probes: tuple[str, ...] = ()
    request_percent: int = 100
    monitoring: str = ""
    node_selector: Mapping[str, str] | None = None
    tolerations: tuple[Mapping[str, Any], ...] = ()


def read_grant(resource: Object) -> Consent:
    """Raises Invalid that names the field."""
    spec: Object = resource.get("spec") or {}
    return Consent(
        name=resource["metadata"]["name"],
        uid=resource["metadata"].get("uid", ""),
        grant=objects.grant_of(spec),
        revocation=objects.revocation_of(spec),
        document=spec.get("document"),
    )


def read_hospital(resource: Object) -> Hospital:
    """Raises Invalid that names the field; the schema of the resource refuses most before."""
    spec: Object = resource["spec"]
    try:
        return Hospital(
            name=resource["metadata"]["name"],
            uid=resource["metadata"].get("uid", ""),
            root=spec["root"],
            work=spec["workNamespace"],
            hub_url=_hub_url(spec["hub"]["url"]),
            hub_cidrs=tuple(_network(cidr) for cidr in spec["hub"]["cidrs"]),
            image=spec["images"]["worker"],
            pull_secrets=tuple(secret["name"] for secret in spec.get("imagePullSecrets") or ()),
            datasets={
                found["name"]: Dataset(found["name"], found["claimName"], found.get("subPath", ""))
                for found in spec["datasets"]
            },
            quota=_quota(spec["quota"]),
            probes=tuple(_probe(text) for text in spec.get("egressProbes") or ()),
            request_percent=int(spec.get("requestPercent", 100)),
            monitoring=spec.get("monitoringNamespace", ""),
            node_selector=spec.get("nodeSelector") or None,
            tolerations=tuple(spec.get("tolerations") or ()),
        )
    except KeyError as error:
        raise Invalid("A field is missing.", where=f"spec: {error.args[0]}") from None


def _hub_url(url: str) -> str:
    """As it is, if its host can be looked up and its port connected to."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as the resolver will: it raises for labels that are empty or too long
    except ValueError:
        host, port = "", None
    if not host or port == 0:
        todo = "Write it like https://hub.example.org:8470."
        raise Invalid(f'"{url}" is no address of a hub.', where="spec: hub.url", todo=todo)
    return url


def _network(cidr: str) -> str:
    try:
        ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        raise Invalid(f'"{cidr}" is no network.', where="spec: hub.cidrs", todo="Such as 203.0.113.7/32.") from None
    return cidr


def _probe(text: str) -> str:
    """An address, since a Ray pod resolves no names: of a name it would seem that it cannot be reached."""
    host, _, port = text.removesuffix("/udp").rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        good = 0 < int(port) < 65_536
    except ValueError:
        good = False
    if not good:
        todo = "Write ADDRESS:PORT, ADDRESS:PORT/udp or [v6]:PORT; Ray pods resolve no names."
        raise Invalid(f'"{text}" is no address with a port.', where="spec: egressProbes", todo=todo)
    return text


def _quota(given: Object) -> Quota:
    return Quota(
        quantity.parse(given["cpu"]),
        int(quantity.parse(given["memory"])),
        int(given.get("gpus", 0)),
        int(given["pods"]),
    )
