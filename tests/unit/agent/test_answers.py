"""Whatever bytes a trainer sends, the agent stays within its bounds (PROTECTION.md, last law)."""

import json
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koinon.agent import answers
from koinon.agent.answers import NotFinite
from koinon.domain import tensors
from koinon.domain.errors import Invalid, KoinonError, TooLarge
from koinon.domain.layout import Tensor
from koinon.domain.metrics import BINS

LAYOUT = tensors.named((Tensor(name="weight", shape=(1, 13)), Tensor(name="bias", shape=(1,))), "update")
VALUES = np.arange(14, dtype="<f4")
GOOD = tensors.header(LAYOUT, {"report": "{}"}) + VALUES.tobytes()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def receive(chunks: Any, target: Path, **named: Any) -> answers.Received:
    return answers.receive_tensors(chunks, LAYOUT, target, check=lambda: None, **named)


@given(size=st.integers(1, 2_000))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_good_tensors_arrive_however_they_are_cut(tmp_path: Path, size: int) -> None:
    received = receive(pieces(GOOD, size), tmp_path / "out")
    assert received.metadata == {"report": "{}"}
    assert np.array_equal(np.fromfile(received.path, "<f4"), VALUES)


@given(data=st.binary(max_size=400), size=st.integers(1, 500))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_the_layout_or_an_error_without_a_file(tmp_path: Path, data: bytes, size: int) -> None:
    target = tmp_path / "out"
    with pytest.raises(KoinonError):
        receive(pieces(data, size), target)
    assert not target.exists()


@given(
    at=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7), cut=st.integers(0, len(GOOD)), extra=st.binary(max_size=9)
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_answer_gives_the_exact_layout_or_nothing(
    tmp_path: Path, at: int, bit: int, cut: int, extra: bytes
) -> None:
    data = bytearray(GOOD)
    data[at] ^= 1 << bit
    target = tmp_path / "out"
    try:
        receive(pieces(bytes(data)[:cut] + extra, 64), target)
    except KoinonError:
        assert not target.exists()
    else:
        assert target.stat().st_size == 4 * 14
        assert np.isfinite(np.fromfile(target, "<f4")).all()


class Endless:
    """A trainer that never stops sending. Counts what was taken of it."""

    def __init__(self, start: bytes, filler: bytes) -> None:
        self.start, self.filler, self.taken = start, filler, 0

    def __iter__(self) -> Iterator[bytes]:
        yield self.start
        while True:
            self.taken += len(self.filler)
            yield self.filler


@pytest.mark.parametrize(
    ("start", "filler"),
    [
        (struct.pack("<Q", 2**62), b"x" * 2**16),
        (struct.pack("<Q", 15 * 2**20), b"x" * 2**16),
        (struct.pack("<Q", 8), b"{}      "),
        (tensors.header(LAYOUT), b"\0" * 2**16),
        (b"", b"\xff" * 2**16),
    ],
)
def test_an_endless_answer_costs_little_memory_and_disk(tmp_path: Path, start: bytes, filler: bytes) -> None:
    stream, target = Endless(start, filler), tmp_path / "out"
    tracemalloc.start()
    with pytest.raises((TooLarge, Invalid)):
        receive(stream, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert stream.taken <= 2**18
    assert peak < 4 * 2**20
    assert not target.exists()


def test_a_drip_ends_at_its_deadline(tmp_path: Path) -> None:
    class Over(Exception):
        pass

    left = 100

    def check() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Over

    def drip() -> Iterator[bytes]:
        yield tensors.header(LAYOUT)
        while True:
            yield b""

    with pytest.raises(Over):
        answers.receive_tensors(drip(), LAYOUT, tmp_path / "out", check=check)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_its_tensor(tmp_path: Path, value: float) -> None:
    for word, name in ((3, "weight"), (13, "bias")):
        values = VALUES.copy()
        values[word] = value
        with pytest.raises(NotFinite) as caught:
            receive(pieces(tensors.header(LAYOUT) + values.tobytes(), 7), tmp_path / "out")
        assert caught.value.names == (name,)


def test_json_is_bounded() -> None:
    with pytest.raises(TooLarge):
        answers.receive_json(Endless(b"[", b" " * 1000), check=lambda: None)
    for text in (b"{", b"[" * 100_000, b"\xff", b"1e9999x", b"9" * 10_000):
        with pytest.raises(Invalid):
            answers.receive_json([text], check=lambda: None)


def report(**changes: Any) -> dict[str, Any]:
    bins = [1.0] * BINS
    evaluation = {"rows": 128, "accuracy": 0.5, "correct": 64, "loss": 0.7, "negatives": bins, "positives": bins}
    return {"rows": 10, "seconds": 1.0, "evaluation": evaluation | changes}


def test_a_report_becomes_the_words_of_the_vector() -> None:
    read, words = answers.read_report(report(), ("accuracy", "auc", "loss"))
    assert read.rows == 10
    assert words["accuracy.correct"] == [64.0]
    assert words["auc.site"] == [0.5]


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": float("nan")},
        {"loss": None},
        {"accuracy": float("inf")},
        {"negatives": [1.0] * (BINS - 1)},
        {"positives": [float("nan")] + [0.0] * (BINS - 1)},
        {"rows": -1},
        {"rows": "many"},
    ],
)
def test_a_bad_report_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        answers.read_report(report(**changes), ("accuracy", "auc", "loss"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON)
@settings(max_examples=200)
def test_any_json_is_a_report_or_invalid(value: Any) -> None:
    parsed = answers.parse_json(json.dumps(value))
    with pytest.raises(Invalid):
        answers.read_report({"evaluation": parsed}, ("accuracy", "auc", "loss"))
