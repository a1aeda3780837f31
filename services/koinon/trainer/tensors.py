"""A site's arrays, and flat float32 vectors in the safetensors form that domain/tensors.py writes and checks.

A file holds groups of tensors named `prefix/name`; each group lies in one piece, in the model's order.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from koinon.trainer.errors import TrainerError

Shape = tuple[int, ...]
Layout = tuple[tuple[str, Shape], ...]
Vector = npt.NDArray[np.float32]  # one dimension
Array = npt.NDArray[np.float32]

MAX_HEADER = 16 * 2**20


@dataclass(frozen=True)
class Rows:
    """What a model sees of a site: x float32 (rows, inputs), y float32 (rows, 1)."""

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array


def size(layout: Layout) -> int:
    return sum(int(np.prod(shape, dtype=np.int64)) for _, shape in layout)


def header(layout: Layout, prefixes: Sequence[str], metadata: Mapping[str, str] | None = None) -> bytes:
    """u64 length and JSON, padded with spaces to a multiple of 8; the tensors once per prefix."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for prefix in prefixes:
        for name, shape in layout:
            end = offset + 4 * size(((name, shape),))
            entries[f"{prefix}/{name}"] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def parse(body: bytes | bytearray) -> tuple[Layout, dict[str, Vector], dict[str, str]]:
    """Layout, flat vector per prefix (views of `body`), metadata. Raises TrainerError bad_request.

    All groups must have the same layout, and the vectors must fill the body.
    """
    try:
        (length,) = struct.unpack_from("<Q", body)
        if length > MAX_HEADER or length % 4:
            raise ValueError(f"header of {length} bytes")
        entries = json.loads(bytes(body[8 : 8 + length]))
        metadata = {str(key): str(value) for key, value in entries.pop("__metadata__", {}).items()}
        groups, end = _groups(entries)
        if end != len(body) - 8 - length:
            raise ValueError(f"the tensors have {end} bytes, the body {len(body) - 8 - length}")
        if len({layout for layout, _ in groups.values()}) > 1:
            raise ValueError("the groups differ in their layout")
        flat = np.frombuffer(body, dtype="<f4", offset=8 + length)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError) as error:
        raise TrainerError("bad_request", f"no tensors: {error}") from None
    vectors = {prefix: flat[first : first + size(layout)] for prefix, (layout, first) in groups.items()}
    return next((layout for layout, _ in groups.values()), ()), vectors, metadata


def _groups(entries: Mapping[str, Any]) -> tuple[dict[str, tuple[Layout, int]], int]:
    """Per prefix its layout and first word; and the end of the last tensor in bytes."""
    groups: dict[str, tuple[list[tuple[str, Shape]], int]] = {}
    offset, last = 0, None
    for full, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        prefix, slash, name = full.partition("/")
        shape = tuple(entry["shape"])
        if entry["dtype"] != "F32" or not slash or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("a tensor is not a named float32 one")
        end = offset + 4 * size(((name, shape),))
        if entry["data_offsets"] != [offset, end]:
            raise ValueError("the tensors do not lie back to back")
        if prefix != last and prefix in groups:
            raise ValueError("a group lies in two pieces")
        groups.setdefault(prefix, ([], offset // 4))[0].append((name, shape))
        offset, last = end, prefix
    return {prefix: (tuple(tensors), first) for prefix, (tensors, first) in groups.items()}, offset
