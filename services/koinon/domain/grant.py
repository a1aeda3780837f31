"""A hospital's consent: its root's signature over a manifest's hash, with limits of its own, and its end."""

from pydantic import Field, model_validator

from koinon.domain.errors import Refused
from koinon.domain.ids import Hash, Name, PublicKey
from koinon.domain.keys import Signed, Wire


class Resources(Wire):
    """What the hospital gives the project: processor cores, memory and disk in bytes, seconds a fit.

    On Kubernetes cores, memory, disk and GPUs are those of one Ray pod, and `min_workers` to `max_workers` such pods
    may work beside the head, as the hospital has room; with none, the head trains alone. Elsewhere there is one pod.
    """

    cpus: int = Field(default=1, ge=1)
    memory: int = Field(default=4 * 2**30, ge=2**28)
    disk: int = Field(default=16 * 2**30, ge=2**24)
    fit_seconds: int = Field(default=3_600, ge=1)
    min_workers: int = Field(default=0, ge=0)
    max_workers: int = Field(default=0, ge=0, le=1_000)
    gpus: int = Field(default=0, ge=0, le=64)

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "Resources":
        if self.max_workers < self.min_workers:
            raise ValueError(f"at most {self.max_workers} workers, but at least {self.min_workers}")
        return self


class Grant(Signed):
    """Times in seconds since 1970. `vouched` are the peers whose root this hospital compared out of band."""

    purpose = "grant"
    manifest: Hash
    site: Name
    not_before: int
    expires: int
    dataset: str = Field(min_length=1, max_length=256)
    vouched: dict[Name, PublicKey]
    min_sites: int = Field(default=3, ge=3)
    min_others: int = Field(default=2, ge=2)
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> "Grant":
        if self.expires <= self.not_before:
            raise ValueError("the grant ends before it starts")
        return self

    def check_now(self, now: float) -> None:
        """Raises Refused outside the grant's time."""
        if now < self.not_before:
            raise Refused(f"The grant of {self.site} is not valid yet.", todo="Check the site's clock.")
        if now >= self.expires:
            raise Refused(f"The grant of {self.site} has expired.", todo="The hospital can grant again: koinon grant")


class Revocation(Signed):
    """Ends every grant of `manifest` that the site made before `time`."""

    purpose = "revocation"
    manifest: Hash
    site: Name
    time: int
