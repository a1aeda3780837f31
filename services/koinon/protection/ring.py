"""An update as words of the ring of 2^32: clipped, stochastically rounded, and read back from the opened sum.

With a public bound C and Q = ⌊(2^31 - 1) / n⌋ a word stands for word · C/Q and lies within ±Q, so that the centred
sum of n sites cannot wrap. Rounding is unbiased with an error below one step (Connolly, Higham and Mary 2021, SIAM J.
Sci. Comput. 43:A566). All arithmetic is float64, in a fixed order, so that every machine makes the same words.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from koinon.domain import canonical
from koinon.domain.errors import Invalid
from koinon.domain.layout import Segment
from koinon.domain.manifest import decimal
from koinon.protection.masking import Words

HALF = 2**31 - 1
CLIPPED = "clipped"  # the word that says whether a tensor was clipped; the codec sets it itself
F = TypeVar("F", bound=Callable[..., Any])
Values = NDArray[np.float32] | NDArray[np.float64]

_SINGLE = numba.types.Array(numba.float32, 1, "C", readonly=True)
_DOUBLE = numba.types.Array(numba.float64, 1, "C", readonly=True)
_WORDS = numba.uint32[::1]
_f8, _u4 = numba.float64, numba.uint32


def quotient(n: int) -> int:
    """Q: how many steps a site may be from 0 so that `n` of them stay within ±(2^31 - 1)."""
    return HALF // n


def rounding_seed(run_seed: int, round: int, site: str) -> bytes:
    """32 bytes that fix a site's rounding in a round, so that a retry makes the same words."""
    return hashlib.sha256(b"koinon/rounding\0" + canonical.encode([run_seed, round, site])).digest()


class Codec:
    """Encodes and decodes the one vector of an attempt; `n` are the sites of the round's first attempt.

    Raises Invalid for a bound that is not positive, or of a whole segment too large for n sites.
    """

    def __init__(self, segments: Sequence[Segment], n: int) -> None:
        self.segments = tuple(segments)
        self.size = sum(segment.size for segment in self.segments)
        self._q = quotient(n)
        for segment in self.segments:
            if decimal(segment.bound) <= 0:
                raise Invalid(f"A bound is positive, not {segment.bound}.", where=segment.name)
            if segment.whole and decimal(segment.bound) > self._q:
                raise Invalid(f"{segment.name} may be {segment.bound} at {n} sites: their sum would wrap.")

    def encode(
        self,
        values: Mapping[str, ArrayLike],
        seed: bytes,
        *,
        factors: Mapping[str, float] | None = None,
        out: Words | None = None,
    ) -> Words:
        """The words of `values`, which has every segment but `clipped` as float32 or float64[size], memory maps too.

        `factors` multiply segments before they are clipped (the weight of the update); `out` is filled if given,
        uint32[self.size], else made. Raises Invalid naming the segment whose size is wrong, that has a NaN or an
        infinite value, or a fraction where it counts.
        """
        words = np.empty(self.size, np.uint32) if out is None else np.asarray(out)
        names = {segment.name for segment in self.segments} - {CLIPPED}
        if set(values) != names or words.shape != (self.size,):
            raise Invalid(f"The update has {sorted(values)} and {words.size} words, not {sorted(names)}, {self.size}.")
        clipped, start = False, 0
        for segment in self.segments:
            target = words[start : (start := start + segment.size)]
            if segment.name == CLIPPED:
                target[:] = clipped
                continue
            factor = (factors or {}).get(segment.name, 1.0)
            clipped |= self._encode(segment, _flat(segment, values[segment.name]), factor, seed, target)
        return words

    def _encode(self, segment: Segment, values: Values, factor: float, seed: bytes, target: Words) -> bool:
        """Fills `target`; whether the segment was a tensor beyond its norm. NB: `clipped` follows the tensors."""
        square = _square(values)
        if not math.isfinite(square):
            raise Invalid("A value is not a finite number.", where=segment.name)
        if segment.whole:
            if np.any(values % 1) or factor != 1:
                raise Invalid("A value is not a whole number.", where=segment.name)
            _round(values, target, 1.0, decimal(segment.bound), 0, 0)
            return False
        bound = decimal(segment.bound)
        norm = math.sqrt(square) * factor
        over = segment.clip == "l2" and norm > bound
        scale = self._q / (norm if over else bound) * factor
        first, second = _stream(seed, segment.name)
        _round(values, target, scale, float(self._q), first, second)
        return over

    def decode(self, words: Words) -> dict[str, Values]:
        """The sums that the opened `words` stand for, centred and not divided by anything.

        Tensors come as float32[size] in the memory of `words`, which is used up; all others as float64[size].
        """
        result: dict[str, Values] = {}
        start = 0
        for segment in self.segments:
            part = words[start : (start := start + segment.size)]
            step = 1.0 if segment.whole else decimal(segment.bound) / self._q
            if segment.clip == "l2":
                _centre(part, step)
                result[segment.name] = part.view(np.float32)
            else:
                result[segment.name] = part.view(np.int32) * step
        return result


def _flat(segment: Segment, given: ArrayLike) -> Values:
    array = np.asarray(given)
    array = np.ascontiguousarray(array, None if array.dtype == np.float32 else np.float64)
    if array.shape != (segment.size,):
        raise Invalid(f"It has the shape {list(array.shape)}, not [{segment.size}].", where=segment.name)
    return array


def _stream(seed: bytes, name: str) -> tuple[int, int]:
    digest = hashlib.sha256(seed + name.encode()).digest()
    return int.from_bytes(digest[:4]), int.from_bytes(digest[4:8])


def _compiled(*signatures: Any) -> Callable[[F], F]:
    """Machine code when the module is first imported, cached on disk; it runs without the interpreter's lock."""
    return cast(Callable[[F], F], numba.njit(list(signatures), cache=True, nogil=True))


@_compiled(*(_f8(values) for values in (_SINGLE, _DOUBLE)))
def _square(values: Values) -> float:
    """Sum of squares; not finite if any value is not.

    NB: eight sums in a fixed order fill the vector units without letting the compiler reorder additions.
    """
    sums = np.zeros(8)
    whole = values.size - values.size % 8
    for i in range(0, whole, 8):
        for lane in range(8):
            sums[lane] += np.float64(values[i + lane]) * np.float64(values[i + lane])
    for i in range(whole, values.size):
        sums[i - whole] += np.float64(values[i]) * np.float64(values[i])
    return float(((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7])))


@_compiled(*(numba.void(values, _WORDS, _f8, _f8, _u4, _u4) for values in (_SINGLE, _DOUBLE)))
def _round(values: Values, words: Words, scale: float, limit: float, first: int, second: int) -> None:
    """words = ⌊v⌋ + [u < v - ⌊v⌋] for v = values · scale within ±limit; u is a hash of position and stream.

    The hash is lowbias32 (Wellons 2018). At ±limit, an integer, nothing is rounded, so no word exceeds it.
    """
    for i in range(values.size):
        v = min(max(np.float64(values[i]) * scale, -limit), limit)
        below = np.floor(v)
        h = np.uint32(np.uint32(i) ^ np.uint32(first))
        h = np.uint32(np.uint32((h ^ np.uint32(h >> np.uint32(16))) * np.uint32(0x7FEB352D)) + np.uint32(second))
        h = np.uint32((h ^ np.uint32(h >> np.uint32(15))) * np.uint32(0x846CA68B))
        h = np.uint32(h ^ np.uint32(h >> np.uint32(16)))
        up = np.float64(np.int32(h >> np.uint32(1))) < (v - below) * 2147483648.0
        words[i] = np.uint32(np.int32(below) + np.int32(up))


@_compiled(numba.void(_WORDS, _f8))
def _centre(words: Words, step: float) -> None:
    """Each word becomes the bits of float32(int32(word) · step)."""
    for i in range(words.size):
        words[i] = np.float32(np.int32(words[i]) * step).view(np.uint32)
