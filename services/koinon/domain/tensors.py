"""The wire form of tensors: safetensors-compatible, float32 tensors back to back in a declared order.

Since sender and receiver both know the layout, the header is checked against it byte by byte before a
value is read; the body is then exactly one flat little-endian float32 vector.
"""

import json
import struct
from collections.abc import Sequence

from koinon.domain.errors import Invalid, TooLarge
from koinon.domain.layout import Layout, Tensor, size

MAX_HEADER = 16 * 2**20


def named(layout: Layout, *prefixes: str) -> Layout:
    """The layout of a file that holds the tensors once per prefix: `model/weight`, `control/weight`, …"""
    return tuple(Tensor(name=f"{prefix}/{t.name}", shape=t.shape) for prefix in prefixes for t in layout)


def header(layout: Sequence[Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes before the body: u64 length and JSON, padded with spaces to a multiple of 8."""
    entries: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for tensor in layout:
        end = offset + 4 * tensor.size()
        entries[tensor.name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def header_length(first: bytes) -> int:
    """Bytes of the JSON that follows the first 8 bytes. Raises TooLarge beyond 16 MiB."""
    if len(first) < 8:
        raise Invalid("The tensors end before their header.")
    (length,) = struct.unpack("<Q", first[:8])
    if length > MAX_HEADER:
        raise TooLarge(f"A header of {length} bytes is above {MAX_HEADER}.")
    return int(length)


def check_header(text: bytes, expected: Sequence[Tensor]) -> dict[str, str]:
    """The metadata of a header (without its length) that declares exactly `expected`, in any order of
    entries but with the offsets of the declared order. Raises Invalid naming tensor and shapes."""
    try:
        entries = json.loads(text)
        metadata = entries.pop("__metadata__", {}) if isinstance(entries, dict) else None
    except (ValueError, RecursionError):
        raise Invalid("The header of the tensors is not JSON.") from None
    if not isinstance(entries, dict) or not isinstance(metadata, dict):
        raise Invalid("The header of the tensors is not an object.")
    offset = 0
    for tensor in expected:
        entry = entries.pop(tensor.name, None)
        if not isinstance(entry, dict):
            raise Invalid(f'The tensor "{tensor.name}" is missing.')
        if entry.get("dtype") != "F32":
            raise Invalid(f'The tensor "{tensor.name}" is not float32.')
        if entry.get("shape") != list(tensor.shape):
            shown = entry.get("shape") if isinstance(entry.get("shape"), list) else "unknown"
            raise Invalid(f'The tensor "{tensor.name}" has the shape {shown}, not {list(tensor.shape)}.')
        end = offset + 4 * tensor.size()
        if entry.get("data_offsets") != [offset, end]:
            raise Invalid(f'The tensor "{tensor.name}" is not at bytes {offset} to {end}.')
        offset = end
    if entries:
        raise Invalid(f"{len(entries)} tensors are not in the layout.")
    return {str(key): str(value) for key, value in metadata.items()}


def file_bytes(layout: Sequence[Tensor], metadata: dict[str, str] | None = None) -> int:
    """Header and body in bytes."""
    return len(header(layout, metadata)) + 4 * size(layout)
