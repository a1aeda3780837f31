"""`python -m koinon.trainer.denial HOST:PORT HOST:PORT/udp …`: proves that none of them can be reached from here.

The init container of every Ray pod: what holds the data starts only if this ends with 0. TCP counts as reached when a
connection is made, UDP when anything answers a question to a name server. Policies may come into force a moment after
the pod: as long as something answers it tries again, and at the end says what still did. Ends with 1 if something
answered, with 2 if an argument is wrong. Standard library only.
"""

import argparse
import contextlib
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SECONDS = 4.0
PATIENCE = 30.0
_AGAIN = 0.5
_MESSAGE_BYTES = 4_000  # Kubernetes cuts a termination message at 4096


@dataclass(frozen=True)
class Target:
    host: str
    port: int
    udp: bool
    text: str  # as it was given


def target(text: str) -> Target:
    """Raises ValueError."""
    address, slash, protocol = text.partition("/")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536 or (slash and protocol not in ("udp", "tcp")):
        raise ValueError(f'"{text}" is not HOST:PORT, HOST:PORT/udp or [v6]:PORT')
    return Target(host.strip("[]"), int(port), protocol == "udp", text)


def question() -> bytes:
    """A name server answers this, if only with a refusal: who serves the root? (RFC 1035)"""
    header = struct.pack(">HHHHHH", secrets.randbelow(2**16), 0x0100, 1, 0, 0, 0)
    return header + b"\0" + struct.pack(">HH", 2, 1)


def reached(wanted: Target, seconds: float) -> bool:
    """Whether it answers within `seconds`."""
    until = time.monotonic() + seconds
    try:
        found = socket.getaddrinfo(
            wanted.host, wanted.port, type=socket.SOCK_DGRAM if wanted.udp else socket.SOCK_STREAM
        )
    except OSError:
        return False
    ask: Callable[[socket.socket, float], None] = _ask if wanted.udp else lambda *_: None
    while (left := until - time.monotonic()) > 0:
        for family, kind, protocol, _, address in found:
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as made:
                made.settimeout(max(0.1, left if not wanted.udp else min(left, 1.0)))
                made.connect(address)
                ask(made, left)
                return True
        time.sleep(min(_AGAIN, max(0.0, until - time.monotonic())))
    return False


def _ask(made: socket.socket, _left: float) -> None:
    made.send(question())
    made.recv(512)


def still_reached(targets: Sequence[Target], seconds: float, patience: float) -> list[Target]:
    """Those that answer, after `patience` seconds of trying again; none as soon as none does."""
    until = time.monotonic() + patience
    with ThreadPoolExecutor(max(1, len(targets))) as threads:
        while True:
            answers = threads.map(lambda wanted: reached(wanted, seconds), targets)
            found = [wanted for wanted, answered in zip(targets, answers, strict=True) if answered]
            if not found or time.monotonic() > until:
                return found
            time.sleep(_AGAIN)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="koinon.trainer.denial", description=__doc__)
    parser.add_argument("targets", nargs="+", help="HOST:PORT, HOST:PORT/udp, [v6]:PORT; several in one will do")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="each may take to answer")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wait for the denial")
    parser.add_argument("--log", type=Path, default=Path("/dev/termination-log"), help="gets the outcome, too")
    given = parser.parse_args(arguments)
    try:
        targets = [target(word) for text in given.targets for word in text.split()]
    except ValueError as error:
        return _say(str(error), given.log, 2)
    if not targets:
        return _say("no address was given", given.log, 2)
    found = still_reached(targets, given.seconds, given.patience)
    if found:
        return _say("reachable: " + " ".join(wanted.text for wanted in found), given.log, 1)
    return _say(f"denied: {len(targets)} addresses", given.log, 0)


def _say(text: str, log: Path, code: int) -> int:
    print(text, flush=True)
    with contextlib.suppress(OSError):
        log.write_text(text[:_MESSAGE_BYTES] + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
