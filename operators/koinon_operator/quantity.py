"""Kubernetes' quantities: `500m`, `4Gi`, `1e3`. The API server writes them anew, so they are compared as numbers."""

from decimal import Decimal

from koinon.domain import canonical
from koinon.domain.errors import Invalid

_FACTORS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal("1e3"),
    "M": Decimal("1e6"),
    "G": Decimal("1e9"),
    "T": Decimal("1e12"),
    "P": Decimal("1e15"),
    "E": Decimal("1e18"),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse(value: str | int | float) -> Decimal:
    """Raises Invalid for what is no quantity."""
    text = str(value).strip()
    for length in (2, 1):
        factor = _FACTORS.get(text[-length:])
        if factor is not None and len(text) > length:
            text, scale = text[:-length], factor
            break
    else:
        scale = Decimal(1)
    try:
        return canonical.finite(text) * scale
    except Invalid:
        raise Invalid(f'"{value}" is no quantity.', todo="Write a number, such as 16, 500m or 64Gi.") from None


def equal(one: object, other: object) -> bool:
    """Whether both are the same quantity; False if one is none."""
    if not isinstance(one, str | int | float) or not isinstance(other, str | int | float):
        return False
    try:
        return parse(one) == parse(other)
    except Invalid:
        return False
