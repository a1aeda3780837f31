"""Parts of a batch: none lost, none twice, all alike in size, and the same whoever computes them."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from koinon.trainer import parts

COUNTS = st.integers(1, 300)


@given(rows=COUNTS, most=COUNTS)
def test_parts_are_the_batch_in_its_order(rows: int, most: int) -> None:
    batch = np.random.default_rng(rows).permutation(rows)
    pieces = parts.cut(batch, most)
    assert np.array_equal(np.concatenate(pieces), batch)
    sizes = [len(piece) for piece in pieces]
    assert len(sizes) == min(rows, most)
    assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1


@given(count=COUNTS, ranks=COUNTS)
def test_every_part_has_one_rank_and_ranks_have_equal_shares(count: int, ranks: int) -> None:
    shares = [parts.share(count, rank, ranks) for rank in range(ranks)]
    assert [part for share in shares for part in share] == list(range(count))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes.count(0) == max(0, ranks - count)


@given(count=COUNTS, ranks=st.integers(1, 50))
def test_more_ranks_never_make_the_slowest_one_slower(count: int, ranks: int) -> None:
    slowest = [max(len(parts.share(count, rank, n)) for rank in range(n)) for n in (ranks, ranks + 1)]
    assert all(before >= after for before, after in pairwise(slowest))
