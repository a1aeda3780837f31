import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load

from koinon.domain import tensors
from koinon.domain.errors import Invalid, KoinonError, TooLarge
from koinon.domain.layout import Tensor

LAYOUT = (Tensor(name="z", shape=(2, 3)), Tensor(name="a", shape=(4,)), Tensor(name="scalar", shape=()))


def test_any_safetensors_reader_can_read_it() -> None:
    flat = np.arange(11, dtype="<f4")
    read = load(tensors.header(LAYOUT, {"k": "v"}) + flat.tobytes())
    assert read["z"].tolist() == flat[:6].reshape(2, 3).tolist()
    assert read["a"].tolist() == flat[6:10].tolist()
    assert read["scalar"] == 10


def test_the_header_it_writes_is_the_header_it_accepts() -> None:
    head = tensors.header(LAYOUT, {"k": "v"})
    assert tensors.header_length(head) == len(head) - 8
    assert tensors.check_header(head[8:], LAYOUT) == {"k": "v"}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (LAYOUT[:2], "missing"),
        ((*LAYOUT, Tensor(name="more", shape=(1,))), "not in the layout"),
        ((Tensor(name="z", shape=(3, 2)), *LAYOUT[1:]), r"shape \[3, 2\], not \[2, 3\]"),
        ((LAYOUT[1], LAYOUT[0], LAYOUT[2]), "not at bytes"),
    ],
)
def test_another_layout_is_named(other: tuple[Tensor, ...], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        tensors.check_header(tensors.header(other)[8:], LAYOUT)


def test_a_header_that_claims_too_much_is_not_read() -> None:
    with pytest.raises(TooLarge):
        tensors.header_length(struct.pack("<Q", 2**40))
    with pytest.raises(Invalid):
        tensors.header_length(b"\0\0\0")


@given(st.binary(max_size=200))
def test_garbage_is_an_error_that_a_person_can_read(garbage: bytes) -> None:
    with pytest.raises(KoinonError):
        tensors.check_header(garbage, LAYOUT)
