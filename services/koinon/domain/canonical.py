"""Canonical JSON (RFC 8785) and the hash that names every document.

Only integers up to 2^53 - 1 stay numbers. Other numbers become decimal strings without exponent or
trailing zeros, so that no reader's float parser can change a hash.
"""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any

import rfc8785

from koinon.domain.errors import Invalid

_MAX_INTEGER = 2**53 - 1
_MAX_DIGITS = 400
"""Before and after the point, each: every float64 has fewer, and `1e2000000000` would be a text of gigabytes."""


def finite(number: Decimal | float | int | str) -> Decimal:
    """`number` exactly. Raises Invalid if it is none, not finite, or has more than 400 digits."""
    try:
        value = Decimal(str(number))
    except (InvalidOperation, ValueError):  # ValueError: an int too long for text, or half a surrogate pair
        raise Invalid("This is not a finite number.") from None
    if not value.is_finite():
        raise Invalid("This is not a finite number.")
    if abs(value.adjusted()) > _MAX_DIGITS or len(value.as_tuple().digits) > _MAX_DIGITS:
        raise Invalid(f"A number has at most {_MAX_DIGITS} digits.")
    return value


def decimal_text(number: Decimal | float | int | str) -> str:
    """`number` as a plain decimal: 0.0010 -> "0.001", 1e-8 -> "0.00000001", -0.0 -> "0"."""
    text = format(finite(number), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def normalise(value: Any) -> Any:
    """`value` with its numbers as the canonical form wants them; tuples become lists."""
    if value is None or isinstance(value, bool | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, int):
        return value if abs(value) <= _MAX_INTEGER else str(value)
    if isinstance(value, float | Decimal):
        return decimal_text(value)
    if isinstance(value, Mapping):
        return {str(key): normalise(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [normalise(item) for item in value]
    raise Invalid(f"A {type(value).__name__} has no canonical form.")


def encode(value: Any) -> bytes:
    """Canonical JSON of `value`. Raises Invalid if it has none, such as text with half a surrogate pair."""
    try:
        return rfc8785.dumps(normalise(value))
    except (ValueError, RecursionError):
        raise Invalid("This has no canonical form.") from None


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(encode(value)).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in pairs:
        if key in result:
            shown = key.encode(errors="replace").decode()
            raise Invalid(f'The key "{shown}" appears twice.', todo="Keep one of them.")
        result[key] = item
    return result


def decode(text: bytes | str) -> Any:
    """JSON in which no object repeats a key and all text is Unicode. Raises Invalid, with line and column if it can."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can be neither shown nor hashed
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, thousands of digits, thousands of levels
        raise Invalid(f"This is not JSON: {error}.") from None
    return value
