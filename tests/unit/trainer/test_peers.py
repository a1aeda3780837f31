"""Ranks that meet over TCP: who belongs to them, who is gone, and what they sum."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from koinon.trainer import parts, peers
from koinon.trainer.errors import TrainerError
from koinon.trainer.peers import Alone, Connected

SECRET = b"s" * 32


def started(ranks: int, work: Callable[[Connected], Any]) -> list["Future[Any]"]:
    """`work` on each of some ranks, which are threads."""
    listeners = [peers.listen("127.0.0.1") for _ in range(ranks)]
    addresses = [listener.getsockname() for listener in listeners]

    def run(rank: int) -> Any:
        group = Connected(rank, addresses, listeners[rank], SECRET)
        try:
            return work(group)
        finally:
            group.close()

    with ThreadPoolExecutor(ranks) as threads:
        return [threads.submit(run, rank) for rank in range(ranks)]


@settings(deadline=None, max_examples=25)
@given(ranks=st.integers(2, 5), count=st.integers(1, 9), length=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_total_is_the_sum_in_order_to_the_bit(ranks: int, count: int, length: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    vectors = [
        torch.from_numpy(draw.normal(0, 10.0 ** draw.integers(-8, 8), length).astype("f4")) for _ in range(count)
    ]
    wanted = Alone().total(iter(vectors), length, count).numpy().tobytes()

    def work(group: Connected) -> bytes:
        mine = parts.share(count, group.rank, group.size)
        return group.total(iter(vectors[mine.start : mine.stop]), length, count).numpy().tobytes()

    assert [future.result() for future in started(ranks, work)] == [wanted] * ranks


def test_more_than_a_sockets_buffer_goes_both_ways_at_once() -> None:
    vector = torch.arange(5_000_000, dtype=torch.float32)
    for future in started(2, lambda group: group.total(iter([vector]), len(vector), 2)):
        assert torch.equal(future.result(), 2 * vector)


def test_agreement_is_that_of_all() -> None:
    digests = [b"a" * 32, b"a" * 32, b"a" * 31 + b"b"]
    assert [f.result() for f in started(3, lambda group: group.agree(digests[0]))] == [True] * 3
    found = [future.result() for future in started(3, lambda group: group.agree(digests[group.rank]))]
    assert found == [False, False, False]


def test_a_rank_that_goes_is_missed_at_once() -> None:
    def work(group: Connected) -> None:
        if group.rank == 1:
            return
        group.total(iter([torch.ones(5)]), 5, 3)

    began = time.monotonic()
    for future in started(3, work):
        error = future.exception()
        assert error is None or (isinstance(error, TrainerError) and error.code == "peer_lost")
    assert time.monotonic() - began < 10


def test_who_does_not_know_the_secret_is_not_let_in() -> None:
    listener, other = peers.listen("127.0.0.1"), peers.listen("127.0.0.1")
    addresses = [listener.getsockname(), other.getsockname()]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(Connected, 0, addresses, listener, SECRET)
        for hello in (b"x" * 36, b"", SECRET[:-1] + b"x" + bytes([0, 0, 0, 1])):
            with socket.create_connection(addresses[0], 10) as stranger:
                stranger.sendall(hello)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(1) == b""
        second = threads.submit(Connected, 1, addresses, other, SECRET)
        assert list(first.result()._links) == [1]
        first.result().close()
        second.result().close()


def test_a_meeting_that_lacks_someone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "MEET_SECONDS", 0.3)
    addresses = [("127.0.0.1", 1), ("127.0.0.1", 1)]
    for rank in (0, 1):  # one waits for a call, one calls
        with pytest.raises(TrainerError, match="peer_lost"):
            Connected(rank, addresses, peers.listen("127.0.0.1"), SECRET)


def test_ranks_leave_no_thread_behind() -> None:
    before = threading.active_count()
    started(3, lambda group: group.agree(b"a"))
    assert threading.active_count() == before
