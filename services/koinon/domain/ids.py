"""Names and ids, and what they may look like."""

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

from koinon.domain.errors import Invalid

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check_name(name: str) -> str:
    """`name` if it is a DNS label (RFC 1123), so that it can name a Kubernetes object too."""
    if not _NAME.fullmatch(name):
        raise ValueError(f'"{name}" is not a name: 1 to 63 of a-z, 0-9 and "-", no "-" at the ends')
    return name


def require_name(name: str, *, where: str = "") -> str:
    try:
        return check_name(name)
    except ValueError as error:
        raise Invalid(f"{error}.", where=where) from None


Name = Annotated[str, AfterValidator(check_name)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-z]{6,40}$")]
