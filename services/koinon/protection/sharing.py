"""Shamir's secret sharing of 32-byte secrets over the integers modulo 2^256 + 297.

Shamir 1979, "How to share a secret", CACM 22:612. The prime is the first above 2^256, so every secret fits.
"""

import hashlib
import math
from collections.abc import Sequence

from koinon.domain.errors import Untrusted

PRIME = 2**256 + 297
SHARE_BYTES = 33
_WIDE = 48  # bytes a coefficient is reduced from: 2^-127 from uniform


def split(secret: bytes, t: int, n: int, key: bytes) -> list[bytes]:
    """`n` shares of 33 bytes, for the points 1 to n; any `t` give `secret`, fewer say nothing about it.

    The coefficients come from `key` (32 secret bytes, used for this secret, t and nothing else), so that a repeated
    call gives the same shares.
    """
    stream = hashlib.shake_256(key).digest(_WIDE * (t - 1))
    coefficients = [int.from_bytes(stream[i : i + _WIDE]) % PRIME for i in range(0, len(stream), _WIDE)]
    constant = int.from_bytes(secret)
    return [_evaluate(coefficients, constant, x).to_bytes(SHARE_BYTES) for x in range(1, n + 1)]


def _evaluate(coefficients: Sequence[int], constant: int, x: int) -> int:
    value = 0
    for coefficient in coefficients:
        value = (value + coefficient) * x % PRIME
    return (value + constant) % PRIME


class Lagrange:
    """Interpolation at 0 from fixed points: the weights are computed once and serve many secrets."""

    def __init__(self, points: Sequence[int]) -> None:
        if len(set(points)) != len(points):
            raise ValueError("the points of an interpolation are distinct")
        product = math.prod(points) % PRIME
        self._weights = []
        for x in points:
            below = x
            for other in points:
                if other != x:
                    below = below * (other - x) % PRIME
            self._weights.append(product * pow(below, -1, PRIME) % PRIME)

    def combine(self, shares: Sequence[bytes]) -> bytes:
        """The secret of 32 bytes. Raises Untrusted if the shares cannot be of one; wrong ones may go unnoticed."""
        pairs = zip(self._weights, shares, strict=True)
        secret = sum(weight * int.from_bytes(share) for weight, share in pairs) % PRIME
        if secret >> 256:
            raise Untrusted("The shares are not of one secret.")
        return secret.to_bytes(32)
