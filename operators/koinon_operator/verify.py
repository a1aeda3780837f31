"""Is this Grant what it claims to be, and does it fit this hospital? Pure.

Checked before anything is made, so that KubeRay, which is silent about what it cannot use, never sees it. The agent
checks again, with the manifest that it fetched itself.
"""

from dataclasses import dataclass

from koinon.domain.errors import KoinonError, Untrusted
from koinon.domain.grant import Resources, Revocation
from koinon.domain.keys import fingerprint
from koinon.domain.manifest import Manifest
from koinon_operator.documents import Consent, Hospital, Quota


@dataclass(frozen=True)
class Problem:
    """Why a Grant cannot be served: a word for programs, and for people what is wrong and what to do."""

    reason: str
    message: str


@dataclass(frozen=True)
class Verdict:
    """`forged`: nothing in the Grant can be trusted. `project`: its name, "" if not known."""

    problem: Problem | None
    forged: bool = False
    project: str = ""


def check(consent: Consent, hospital: Hospital) -> Verdict:
    """All that does not depend on the clock or on other Grants."""
    forged = _signatures(consent, hospital)
    if forged:
        return Verdict(forged, forged=True)
    if consent.document is None:
        return Verdict(_fits(consent, hospital))
    try:
        manifest = Manifest.parse(consent.document, where="spec.document")
        problem = _document(consent, hospital, manifest) or _fits(consent, hospital)
    except Exception as error:  # nobody signed the document: whatever it does to its reader, it is only a bad one
        return Verdict(Problem("BadDocument", f"{said(error)} The project's author must create it anew."))
    return Verdict(problem, project=manifest.name)


def said(error: Exception) -> str:
    """What an error says to people; of one that was not meant for them only its kind."""
    return str(error) if isinstance(error, KoinonError) else f"It cannot be read ({type(error).__name__})."


def _signatures(consent: Consent, hospital: Hospital) -> Problem | None:
    grant = consent.grant
    if grant.site != hospital.name:
        return Problem("WrongSite", f"This is a grant of {grant.site}; this hospital is {hospital.name}.")
    key = fingerprint(hospital.root)
    try:
        grant.check(hospital.root)
    except Untrusted:
        return Problem("BadSignature", f"Not signed by the root key {key} of this Site. Grant again with that key.")
    try:
        if consent.revocation is not None:
            consent.revocation.check(hospital.root)
    except Untrusted:
        todo = "The project is stopped; delete this Grant and grant again, or revoke with that key."
        return Problem("BadRevocation", f"The revocation is not signed by the root key {key} of this Site. {todo}")
    return None


def _document(consent: Consent, hospital: Hospital, manifest: Manifest) -> Problem | None:
    if manifest.digest() != consent.manifest:
        return Problem("ManifestMismatch", "The document does not have the hash that was signed.")
    root = manifest.root_of(hospital.name)
    if root is None:
        return Problem("NotAMember", f"{hospital.name} is not a member of {manifest.name}.")
    if root != hospital.root:
        shown = f"{manifest.name} names {hospital.name} with root key {fingerprint(root)}"
        return Problem("NotAMember", f"{shown}, the Site has {fingerprint(hospital.root)}.")
    if not image_matches(manifest.image, hospital.image):
        return Problem("ImageMismatch", f"{manifest.name} pins {manifest.image}, the Site has {hospital.image}.")
    return None


def image_matches(pinned: str, image: str) -> bool:
    """Whether the hospital's image is the manifest's; a mirror keeps digest and last name, not registry and path."""
    if pinned == "embedded":
        return True
    _, _, digest = pinned.partition("@")
    if digest:
        return image.partition("@")[2] == digest
    return pinned.rpartition("/")[2] == image.rpartition("/")[2]


def _fits(consent: Consent, hospital: Hospital) -> Problem | None:
    dataset = consent.grant.dataset
    if dataset not in hospital.datasets:
        known = ", ".join(sorted(hospital.datasets))
        return Problem("UnknownDataset", f"The Site has no data set {dataset}; it has {known}.")
    over = beyond(consent.grant.resources, hospital.quota)
    if over:
        return Problem("OverQuota", f"{over}. Grant less, or raise the quota of the Site.")
    return None


def beyond(wanted: Resources, quota: Quota) -> str:
    """What of the least that a project needs is more than all that the hospital gives, "" if nothing."""
    pods = 1 + wanted.min_workers
    for need, limit, what in (
        (pods * wanted.cpus, quota.cpu, "cores"),
        (pods * wanted.memory, quota.memory, "bytes of memory"),
        (pods * wanted.gpus, quota.gpus, "GPUs"),
        (pods, quota.pods, "pods"),
    ):
        if need > limit:
            return f"It needs {need} {what}, all projects of this hospital together get {limit}"
    return ""


def trusted_revocation(revocation: Revocation, hospital: Hospital) -> bool:
    """Whether a revocation that was kept is this hospital's own."""
    try:
        revocation.check(hospital.root)
    except Untrusted:
        return False
    return revocation.site == hospital.name
