"""Addresses of names, looked up in the background: a resolver that hangs must not stop a reconcile."""

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("koinon.operator")

_RESOLVER = Path("/etc/resolv.conf")


class Lookup:
    """`addresses` answers with what is known; `refresh` asks again, in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, ...]] = {}
        self.wanted = threading.Event()
        """Set when a name was asked for that was never looked up."""

    def addresses(self, host: str) -> tuple[str, ...]:
        """Of a name; empty until it was looked up for the first time, and if it has none."""
        with self._lock:
            if host not in self._known:
                self._known[host] = ()
                self.wanted.set()
            return self._known[host]

    def refresh(self, changed: Callable[[], None]) -> None:
        """Looks all names up that were asked for, and calls `changed` if one has other addresses than before.

        A name that does not resolve now keeps the addresses that it had.
        """
        self.wanted.clear()
        with self._lock:
            hosts = list(self._known)
        different = False
        for host in hosts:
            found = _resolve(host)
            with self._lock:
                if found and found != self._known[host]:
                    self._known[host], different = found, True
        if different:
            changed()


def _resolve(host: str) -> tuple[str, ...]:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: it can be no name
        log.info("%s does not resolve: %s", host, error)
        return ()
    return tuple(sorted({str(answer[4][0]) for answer in answers}))


def name_servers(path: Path = _RESOLVER) -> list[str]:
    """Those of this pod, which are those that the others would ask."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [field[1] for field in fields if len(field) > 1 and field[0] == "nameserver"]
