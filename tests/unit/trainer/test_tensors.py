"""The trainer's tensors are the domain's, byte for byte; what is malformed is refused."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from koinon.domain import layout as layouts
from koinon.domain import tensors as domain
from koinon.trainer import tensors
from koinon.trainer.errors import TrainerError

LAYOUT: tensors.Layout = (("0.weight", (3, 2)), ("0.bias", (3,)), ("scale", ()))
WIRE = tuple(layouts.Tensor(name=name, shape=shape) for name, shape in LAYOUT)


def body(prefixes: tuple[str, ...] = ("model", "control"), metadata: dict[str, str] | None = None) -> bytearray:
    vector = np.arange(10 * len(prefixes), dtype="<f4")
    return bytearray(tensors.header(LAYOUT, prefixes, metadata) + vector.tobytes())


@pytest.mark.parametrize("metadata", [None, {"report": '{"rows": 3}'}])
def test_headers_agree_with_the_domain(metadata: dict[str, str] | None) -> None:
    ours = tensors.header(LAYOUT, ("update", "control"), metadata)
    assert ours == domain.header(domain.named(WIRE, "update", "control"), metadata)


def test_parsing_gives_back_layout_vectors_and_metadata() -> None:
    layout, vectors, metadata = tensors.parse(body(metadata={"request": "x"}))
    assert (layout, metadata) == (LAYOUT, {"request": "x"})
    assert vectors["model"].tolist() == list(range(10))
    assert vectors["control"].tolist() == list(range(10, 20))


def test_the_safetensors_library_reads_it() -> None:
    assert load(bytes(body()))["control/scale"] == np.float32(19)


def broken(change: Any) -> bytearray:
    whole = body()
    (length,) = struct.unpack_from("<Q", whole)
    entries = json.loads(bytes(whole[8 : 8 + length]))
    change(entries)
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return bytearray(struct.pack("<Q", len(text)) + text + whole[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["model/0.bias"].update(dtype="F64"),
        lambda e: e["model/0.bias"].update(shape=[-3]),
        lambda e: e["model/0.bias"].update(shape=[True, 3]),
        lambda e: e["model/0.bias"].update(data_offsets=[0, 12]),
        lambda e: e.pop("model/0.bias"),
        lambda e: e.update({"loose": e.pop("model/0.weight")}),
        lambda e: e.update({"model/0.bias": None}),
        lambda e: e.update({"control/other": e.pop("control/scale")}),
    ],
)
def test_a_malformed_header_is_refused(change: Any) -> None:
    with pytest.raises(TrainerError, match="bad_request"):
        tensors.parse(broken(change))


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 7, struct.pack("<Q", 2**60), struct.pack("<Q", 8) + b"nothing!", b"\x08" + b"\0" * 7 + b"[1, 2]  "],
)
def test_no_tensors_at_all(content: bytes) -> None:
    with pytest.raises(TrainerError, match="bad_request"):
        tensors.parse(bytearray(content))


def test_a_truncated_and_a_padded_body_are_refused() -> None:
    for content in (body()[:-4], body() + b"\0\0\0\0"):
        with pytest.raises(TrainerError, match="bad_request"):
            tensors.parse(content)
