"""Every error that a person may see, in one shape: what was wrong, where, and what to do.

KoinonError
├── Invalid            the input itself is wrong                      HTTP 422, exit 2
├── NotFound           no such thing, or not for you                  HTTP 404, exit 2
├── Conflict           it contradicts what is already stored          HTTP 409, exit 1
├── Unauthenticated    no, unknown or expired credentials             HTTP 401, exit 2
├── Forbidden          known, but not allowed                         HTTP 403, exit 3
├── Refused            a site refuses: grant, manifest or its policy  HTTP 403, exit 3
├── TooLarge           beyond a bound that the manifest or hub sets   HTTP 413, exit 2
├── Unsupported        a protocol version nobody here speaks          HTTP 426, exit 2
├── Untrusted          a signature, hash or key does not match        HTTP 400, exit 1
├── Unavailable        a part is away; the same call may work later   HTTP 503, exit 1
├── Waiting            the deadline of a wait passed                  HTTP 504, exit 4
└── Failed             a run ended in failure                         HTTP 500, exit 1
"""

from typing import ClassVar


class KoinonError(Exception):
    """Base of all errors shown to people. Never carries a secret, a record or a model value."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.todo = todo

    @classmethod
    def slug(cls) -> str:
        return cls.__name__.lower()

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" {self.todo}" if self.todo else ""
        return f"{place}{self.what}{advice}"


class Invalid(KoinonError):
    status = 422
    exit_code = 2


class NotFound(KoinonError):
    status = 404
    exit_code = 2


class Conflict(KoinonError):
    status = 409


class Unauthenticated(KoinonError):
    status = 401
    exit_code = 2


class Forbidden(KoinonError):
    status = 403
    exit_code = 3


class Refused(KoinonError):
    status = 403
    exit_code = 3


class TooLarge(KoinonError):
    status = 413
    exit_code = 2


class Unsupported(KoinonError):
    status = 426
    exit_code = 2


class Untrusted(KoinonError):
    status = 400


class Unavailable(KoinonError):
    status = 503


class Waiting(KoinonError):
    status = 504
    exit_code = 4


class Failed(KoinonError):
    status = 500


def by_slug(slug: str) -> type[KoinonError]:
    """The class whose problem document names `slug`; KoinonError if a newer hub names another."""
    return next((c for c in KoinonError.__subclasses__() if c.slug() == slug), KoinonError)
