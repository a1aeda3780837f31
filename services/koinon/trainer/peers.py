"""The ranks of a group, as one of them sees them: sums over all, in an order that no number of ranks changes.

Plain TCP between addresses that Ray gives, on free ports. torch's own way (gloo, found through a TCPStore) asks
DNS for the names of addresses, which Ray's pods cannot, and puts a process group where research code finds it.
"""

import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from koinon.trainer import parts
from koinon.trainer.actor import LOST
from koinon.trainer.errors import TrainerError

MEET_SECONDS = 60.0

Address = tuple[str, int]


class Peers(Protocol):
    """What a rank needs of the others. Every rank makes the same calls in the same order."""

    rank: int
    size: int

    def total(self, own: Iterator[torch.Tensor], length: int, count: int) -> torch.Tensor:
        """The sum of `count` vectors of `length`, in their order; `own` yields this rank's share of them.

        A vector may be overwritten once the next one is asked for.
        """
        ...

    def agree(self, digest: bytes) -> bool:
        """Whether all ranks have the same digest."""
        ...


class Alone:
    """A group of one rank."""

    rank, size = 0, 1

    def total(self, own: Iterator[torch.Tensor], length: int, count: int) -> torch.Tensor:
        summed = next(own).clone()
        for vector in own:
            summed.add_(vector)
        return summed

    def agree(self, digest: bytes) -> bool:
        return True


class Connected:
    """One of several ranks, with a connection to each other one. Raises TrainerError peer_lost when one is gone.

    No call has a time limit: the driver keeps the time, and kills the ranks when it is over.
    """

    def __init__(self, rank: int, addresses: Sequence[Address], listener: socket.socket, secret: bytes) -> None:
        """`listener` has this rank's address; `secret` is the group's. Waits MEET_SECONDS for the others."""
        self.rank, self.size = rank, len(addresses)
        self._sender = ThreadPoolExecutor(1, "peers")
        until = time.monotonic() + MEET_SECONDS
        try:
            with listener:
                self._links = {n: _call(addresses[n], rank, secret, until) for n in range(rank)}
                while len(self._links) < self.size - 1:
                    self._links |= _accept(listener, secret, until)
        except OSError as error:
            raise TrainerError(LOST, f"rank {rank} of {self.size} did not meet the others: {error}") from None

    def close(self) -> None:
        self._sender.shutdown()
        for link in self._links.values():
            link.close()

    def total(self, own: Iterator[torch.Tensor], length: int, count: int) -> torch.Tensor:
        """Each rank adds up one stretch of all vectors, and all get all stretches: the traffic of a ring."""
        shares = [parts.share(count, rank, self.size) for rank in range(self.size)]
        stretch = -(-length // self.size)
        lengths = [max(0, min(stretch, length - owner * stretch)) for owner in range(self.size)]
        sent = torch.zeros(self.size, len(shares[self.rank]), stretch)
        for place, vector in enumerate(own):
            for owner, piece in enumerate(vector.split_with_sizes(lengths)):
                sent[owner, place, : len(piece)].copy_(piece)
        received = torch.zeros(count, stretch)
        self._exchange(list(sent), [received[share.start : share.stop] for share in shares])
        summed = received[0]
        for vector in received[1:]:
            summed.add_(vector)
        whole = torch.zeros(self.size, stretch)
        self._exchange([summed] * self.size, list(whole))
        return whole.view(-1)[:length]

    def agree(self, digest: bytes) -> bool:
        mine = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
        all_ = torch.zeros(self.size, len(mine), dtype=torch.uint8)
        self._exchange([mine] * self.size, list(all_))
        return bool((all_ == mine).all())

    def _exchange(self, outgoing: Sequence[torch.Tensor], incoming: Sequence[torch.Tensor]) -> None:
        """Sends and receives one tensor per rank. In each turn every rank has one to send to and one to hear."""
        incoming[self.rank].copy_(outgoing[self.rank])
        try:
            for turn in range(1, self.size):
                to, source = (self.rank + turn) % self.size, (self.rank - turn) % self.size
                sending = self._sender.submit(self._links[to].sendall, _bytes(outgoing[to]))
                _receive(self._links[source], _bytes(incoming[source]))
                sending.result()
        except OSError as error:
            raise TrainerError(LOST, f"rank {self.rank} of {self.size} lost a peer: {error}") from None


def listen(address: str) -> socket.socket:
    """On a free port of this machine's `address`."""
    return socket.create_server((address, 0), backlog=1_024)


def _call(address: Address, rank: int, secret: bytes, until: float) -> socket.socket:
    link = socket.create_connection(address, max(0.1, until - time.monotonic()))
    link.sendall(secret + rank.to_bytes(4, "big"))
    return _ready(link)


def _accept(listener: socket.socket, secret: bytes, until: float) -> dict[int, socket.socket]:
    """A rank that calls; nobody, if whoever calls does not know the secret. Raises OSError when time is up."""
    listener.settimeout(max(0.1, until - time.monotonic()))
    link, _ = listener.accept()
    link.settimeout(5.0)
    hello = bytearray(len(secret) + 4)
    try:
        _receive(link, memoryview(hello))
        known = secrets.compare_digest(hello[:-4], secret)
    except OSError:
        known = False
    if not known:
        link.close()
        return {}
    return {int.from_bytes(hello[-4:], "big"): _ready(link)}


def _ready(link: socket.socket) -> socket.socket:
    link.settimeout(None)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return link


def _receive(link: socket.socket, buffer: memoryview) -> None:
    """Fills `buffer`. Raises OSError, also if the other side ends."""
    while buffer:
        count = link.recv_into(buffer)
        if count == 0:
            raise ConnectionError("it closed the connection")
        buffer = buffer[count:]


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.numpy().reshape(-1).view(np.uint8).data
