"""Clipping and stochastic rounding into the ring."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koinon.domain.errors import Invalid
from koinon.domain.layout import Segment
from koinon.protection import ring
from koinon.protection.ring import Codec

SEED = ring.rounding_seed(42, 3, "north")


def _codec(size: int, bound: str = "1", n: int = 3, clip: str = "each") -> Codec:
    return Codec([Segment.model_validate({"name": "x", "size": size, "bound": bound, "clip": clip})], n)


def _signed(words: np.ndarray) -> np.ndarray:
    return words.view(np.int32).astype(np.int64)


@given(
    values=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=70),
    n=st.integers(1, 300),
    bound=st.sampled_from(["0.001", "0.7", "1", "2.5", "1000"]),
    double=st.booleans(),
)
def test_error_below_one_step(values: list[float], n: int, bound: str, double: bool) -> None:
    codec, c = _codec(len(values), bound, n), float(bound)
    array = np.array(values, np.float64 if double else np.float32)
    step = c / ring.quotient(n)
    decoded = codec.decode(codec.encode({"x": array}, SEED))["x"]
    clipped = np.clip(array.astype(np.float64), -c, c)
    assert np.all(np.abs(decoded - clipped) < step * (1 + 1e-6))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 300, 4_096, 1_000_003])
@pytest.mark.parametrize("value", [1.0, -1.0, 1e30, -1e30, np.nextafter(1.0, 0)])
def test_n_sites_at_the_bound_do_not_wrap(n: int, value: float) -> None:
    words = _signed(_codec(4_096, n=n).encode({"x": np.full(4_096, value)}, SEED))
    assert np.all(np.abs(words) <= ring.quotient(n))
    assert n * int(np.abs(words).max()) <= 2**31 - 1


def test_the_bound_itself_is_exact() -> None:
    for bound in ("0.1", "0.3", "1000", "7.77"):
        for n in (3, 4, 10, 300):
            words = _signed(_codec(64, bound, n).encode({"x": np.full(64, float(bound))}, SEED))
            assert set(words) == {ring.quotient(n)}


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.25, 0.5, 0.9, 0.999])
def test_rounding_is_unbiased(fraction: float) -> None:
    """The mean over 2^18 words, and over 2^12 seeds of one word, is the value within five standard errors."""
    n, q = 1_000, ring.quotient(1_000)
    for base in (0, 12_345, -98_765):
        value, size = (base + fraction) / q, 2**18
        error = 5 * math.sqrt(max(fraction * (1 - fraction), 1e-9) / size) + 1e-6
        words = _signed(_codec(size, n=n).encode({"x": np.full(size, value)}, SEED))
        assert abs(words.mean() - value * q) < error
        codec = _codec(1, n=n)
        single = [_signed(codec.encode({"x": [value]}, ring.rounding_seed(seed, 1, "a")))[0] for seed in range(4_096)]
        assert abs(np.mean(single) - value * q) < 8 * error


def test_rounding_of_neighbours_sites_and_segments_is_independent() -> None:
    size, half = 2**16, 0.5 / ring.quotient(3)
    up = [_signed(_codec(size).encode({"x": np.full(size, half)}, ring.rounding_seed(1, 1, s))) - 0.5 for s in "ab"]
    for one, other in ((up[0][1:], up[0][:-1]), (up[0], up[1]), (up[0][: size // 2], up[0][size // 2 :])):
        assert abs(float(np.mean(one * other))) < 0.25 * 5 / math.sqrt(len(one))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("at", [0, 5, 40, 66])
@pytest.mark.parametrize("clip", ["l2", "each"])
def test_nan_and_infinity_never_reach_the_ring(bad: float, dtype: type, at: int, clip: str) -> None:
    values: np.ndarray = np.ones(67, dtype)
    values[at] = bad
    out = np.full(67, 7, np.uint32)
    with pytest.raises(Invalid, match="x: A value is not a finite number"):
        _codec(67, clip=clip).encode({"x": values}, SEED, out=out)
    assert np.all(out == 7)


def test_l2_clip_is_of_the_weighted_update_and_reported() -> None:
    segments = [
        Segment(name="update", size=4, bound="10", clip="l2"),
        Segment(name="clipped", size=1, bound="1", whole=True),
    ]
    codec = Codec(segments, 3)
    update = np.array([3, 4, 0, 0], np.float32)  # norm 5

    def read(weight: int) -> tuple[list[float], float]:
        opened = codec.decode(codec.encode({"update": update}, SEED, factors={"update": weight}))
        return [float(value) for value in opened["update"]], float(opened["clipped"][0])

    for weight, clipped in ((2, 0.0), (7, 1.0)):
        values, flag = read(weight)
        assert values == pytest.approx([6, 8, 0, 0], abs=1e-7)
        assert flag == clipped


def test_l2_norm_counts_every_value() -> None:
    for size in (1, 7, 8, 9, 31, 1_000):
        values = np.full(size, 2.0, np.float32)
        decoded = _codec(size, "1", clip="l2").decode(_codec(size, "1", clip="l2").encode({"x": values}, SEED))["x"]
        assert np.linalg.norm(decoded.astype(np.float64)) == pytest.approx(1, rel=1e-6)


def test_whole_segments_are_exact_and_capped() -> None:
    codec = Codec([Segment(name="rows", size=4, bound="1000", whole=True)], 300)
    words = codec.encode({"rows": [0.0, 1.0, 1000.0, 1001.0]}, SEED)
    assert list(words) == [0, 1, 1000, 1000]
    total = np.multiply(words, 300, dtype=np.uint32)
    assert list(codec.decode(total)["rows"]) == [0, 300, 300_000, 300_000]
    with pytest.raises(Invalid, match="rows: A value is not a whole number"):
        codec.encode({"rows": [0.0, 1.5, 2.0, 3.0]}, SEED)


def test_a_sum_of_many_sites_decodes_to_the_sum() -> None:
    n, size, draw = 40, 257, np.random.default_rng(0)
    codec = _codec(size, "2", n, clip="l2")
    values = [draw.normal(0, 0.05, size).astype(np.float32) for _ in range(n)]
    words = [codec.encode({"x": v}, ring.rounding_seed(1, 1, str(i))) for i, v in enumerate(values)]
    total = np.stack(words).sum(axis=0, dtype=np.uint32)
    expected = np.sum([v.astype(np.float64) for v in values], axis=0)
    np.testing.assert_allclose(codec.decode(total)["x"], expected, rtol=1e-7, atol=n * 2 / ring.quotient(n))


def test_encoding_goes_between_memory_maps_and_repeats(tmp_path: Path) -> None:
    size = 3 * 65_536 + 17
    values = np.random.default_rng(5).normal(size=size).astype(np.float32)
    values.tofile(tmp_path / "update")
    source = np.memmap(tmp_path / "update", np.float32, "r")
    target = np.memmap(tmp_path / "words", np.uint32, "w+", shape=(size,))
    codec = _codec(size, "1000", 10, clip="l2")
    words = codec.encode({"x": source}, SEED, out=target)
    assert np.shares_memory(words, target)
    np.testing.assert_array_equal(target, codec.encode({"x": values}, SEED))
    decoded = codec.decode(words)["x"]
    assert decoded.dtype == np.float32
    assert np.shares_memory(decoded, target)


def test_the_words_are_the_same_on_every_machine() -> None:
    codec = _codec(5, "1", 10)
    words = codec.encode({"x": np.array([0.1, -0.2, 0.3, 1e-9, -1.0], np.float32)}, SEED)
    assert list(_signed(words)) == [21_474_837, -42_949_673, 64_424_511, 0, -214_748_364]


@pytest.mark.parametrize(
    ("segments", "values", "where"),
    [
        ([("x", 3, "1")], {"x": [1.0, 2.0]}, "shape"),
        ([("x", 3, "1")], {"y": [1.0, 2.0, 3.0]}, "y"),
        ([("x", 3, "1")], {"x": [1.0] * 3, "y": [1.0]}, "y"),
    ],
)
def test_wrong_input_names_the_segment(
    segments: list[tuple[str, int, str]], values: dict[str, list[float]], where: str
) -> None:
    codec = Codec([Segment(name=name, size=size, bound=bound) for name, size, bound in segments], 3)
    with pytest.raises(Invalid, match=where):
        codec.encode(values, SEED)


def test_bounds_that_cannot_hold_are_refused() -> None:
    with pytest.raises(Invalid, match="would wrap"):
        Codec([Segment(name="rows", size=1, bound="10000000", whole=True)], 300)
    with pytest.raises(Invalid, match="positive"):
        _codec(1, "0")
