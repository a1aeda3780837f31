"""Shamir's sharing against its own algebra and against fewer shares."""

import contextlib
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon.domain.errors import Untrusted
from koinon.protection import sharing
from koinon.protection.sharing import PRIME

secrets = st.one_of(st.binary(min_size=32, max_size=32), st.just(b"\xff" * 32), st.just(bytes(32)))
KEY = bytes(range(32))


def test_the_modulus_is_prime_and_above_every_secret() -> None:
    """Miller-Rabin with fixed witnesses; a composite passes one with probability below 1/4."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in range(2, 66):
        powers = [pow(witness, odd << i, PRIME) for i in range(twos)]
        assert powers[0] == 1 or PRIME - 1 in powers
    assert PRIME > 2**256


@given(secret=secrets, t=st.integers(1, 8), extra=st.integers(0, 6), data=st.data())
def test_any_t_shares_give_the_secret(secret: bytes, t: int, extra: int, data: st.DataObject) -> None:
    shares = sharing.split(secret, t, t + extra, KEY)
    points = data.draw(st.permutations(range(1, t + extra + 1)))[:t]
    assert all(len(share) == sharing.SHARE_BYTES for share in shares)
    assert sharing.Lagrange(points).combine([shares[x - 1] for x in points]) == secret


def test_fewer_than_t_shares_fit_every_secret() -> None:
    """For t - 1 shares and any secret there is a polynomial: the shares at hand say nothing about the secret."""
    shares = sharing.split(b"s" * 32, 3, 5, KEY)
    for guess in (bytes(32), b"\xff" * 32, b"g" * 32):
        x, y = [0, 1, 2], [int.from_bytes(value) for value in (guess, shares[0], shares[1])]
        third = sum(
            y[i] * (3 - x[j]) * (3 - x[m]) * pow((x[i] - x[j]) * (x[i] - x[m]), -1, PRIME)
            for i, j, m in ((0, 1, 2), (1, 0, 2), (2, 0, 1))
        )
        forged = [shares[0], shares[1], (third % PRIME).to_bytes(33)]
        assert sharing.Lagrange([1, 2, 3]).combine(forged) == guess


def test_the_same_key_gives_the_same_shares_and_another_key_others() -> None:
    one = sharing.split(b"s" * 32, 4, 6, KEY)
    assert sharing.split(b"s" * 32, 4, 6, KEY) == one
    assert not set(sharing.split(b"s" * 32, 4, 6, b"k" * 32)) & set(one)


def test_the_polynomial_has_degree_t_minus_1() -> None:
    """With one coefficient short, t - 1 shares would do."""
    shares = sharing.split(b"s" * 32, 4, 7, KEY)
    for points in itertools.combinations(range(1, 8), 3):
        try:
            opened = sharing.Lagrange(points).combine([shares[x - 1] for x in points])
        except Untrusted:
            continue
        assert opened != b"s" * 32


def test_shares_that_are_not_of_one_secret_are_noticed_or_give_another() -> None:
    draw = random.Random(1)
    shares = sharing.split(b"s" * 32, 3, 3, KEY)
    shares[1] = draw.randbytes(33)
    with contextlib.suppress(Untrusted):
        assert sharing.Lagrange([1, 2, 3]).combine(shares) != b"s" * 32
    with pytest.raises(Untrusted):  # the constant polynomial 2^256, one above every secret
        sharing.Lagrange([1, 2]).combine([(2**256).to_bytes(33)] * 2)


def test_points_are_distinct() -> None:
    with pytest.raises(ValueError, match="distinct"):
        sharing.Lagrange([1, 1])


def test_three_hundred_sites() -> None:
    shares = sharing.split(b"s" * 32, 181, 300, KEY)
    points = list(range(120, 301))
    assert sharing.Lagrange(points).combine([shares[x - 1] for x in points]) == b"s" * 32
