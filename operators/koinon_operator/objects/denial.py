"""What a Ray pod must fail to reach before it sees data, as addresses: the pod resolves no names.

They are in a ConfigMap and not in the pods' templates, so that a hub with a new address does not restart every cluster.
"""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from koinon_operator.kinds import CONFIG_MAP, Object
from koinon_operator.names import DENIAL, labels

KEY = "targets"
METADATA = "169.254.169.254:80"
"""Where clouds tell a machine its credentials."""
_FEW = 4


def config_map(work: str, targets: Iterable[str]) -> Object:
    return CONFIG_MAP.make(work, DENIAL, {"data": {KEY: " ".join(sorted(set(targets)))}}, labels=labels())


def hub_targets(url: str, cidrs: Iterable[str], addresses: Iterable[str]) -> list[str]:
    """The hub's port at its resolved `addresses`, and at those of each of its networks, or the first of a large one."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    hosts = list(addresses)
    for cidr in cidrs:
        network = ipaddress.ip_network(cidr, strict=False)
        some = list(network) if network.num_addresses <= _FEW else [network[1]]
        hosts += [str(address) for address in some]
    return [target(host, port) for host in dict.fromkeys(hosts)]


def dns_targets(servers: Iterable[str]) -> list[str]:
    """Both transports: a refusal of one says nothing of the other."""
    return [found for server in servers for found in (target(server, 53), f"{target(server, 53)}/udp")]


def target(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
