"""Ports for servers that must keep theirs over a restart."""

import random
import socket

# Below the ports that kernels give to clients: a client of this machine cannot take one while its server is down.
_PORTS = range(20_000, 32_000)


def free() -> int:
    """A port of 127.0.0.1 on which nobody listens. Another process may be faster: try another one then."""
    while True:
        port = random.choice(_PORTS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
