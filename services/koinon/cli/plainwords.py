"""A manifest and a grant as a hospital's IT should read them before signing: everything that the signature covers."""

from collections.abc import Iterable, Sequence
from typing import Any

from koinon.domain import keys
from koinon.domain.contract import Condition
from koinon.domain.grant import Resources
from koinon.domain.manifest import Manifest
from koinon.domain.parameters import Enumeration


def printable(text: str) -> str:
    """`text` without what could move the cursor, colour a line or forge one: its author is not trusted yet."""
    return "".join(character if character.isprintable() else "?" for character in text)


def lines(
    manifest: Manifest,
    *,
    site: str,
    dataset: str,
    days: float,
    vouched: Sequence[str],
    resources: Resources,
    min_sites: int,
    min_others: int,
) -> list[tuple[str, str]]:
    """What it is about, and what it says: one pair a line, no text of the manifest left out but its layout."""
    protection, limits = manifest.protection, manifest.limits
    sites, others = max(min_sites, protection.min_sites), max(min_others, protection.min_others)
    found = [
        ("What for", manifest.purpose),
        ("What runs here", _what_runs(manifest)),
        ("On", _on(manifest, dataset)),
        *((f"Cohort {name}", _cohort(conditions)) for name, conditions in sorted(manifest.cohorts.items())),
        ("Needs", f"at least {manifest.contract.min_records} rows"),
        ("Learns", f"{', '.join(manifest.metrics)} of the whole federation, every round"),
        ("May vary", "; ".join(_choice(name, choice) for name, choice in sorted(manifest.parameters.items()))),
        ("Leaves here", "masked updates, readable as a sum over hospitals; of an error its kind and place, no text"),
        ("The sum has", f"at least {sites} hospitals, {others} of them others that you vouched for"),
        (
            "Clipped to",
            f"L2 norm {protection.clip}, at most {protection.row_cap} rows count, by {protection.weighting}",
        ),
        ("Noise", "No noise is added: what the sums of all hospitals say about a patient is not bounded."),
        ("At most", f"{limits.rounds} rounds, {limits.releases} results, {limits.round_bytes} bytes a round"),
        ("Training gets", _resources(resources)),
        ("Results go to", ", ".join(f"{r.name} ({r.recipient})" for r in manifest.recipients)),
        ("Run by the hub", keys.fingerprint(manifest.hub.signing)),
        ("Follows", manifest.predecessor or "no earlier project"),
        ("Holds until", f"{days:g} days from now, or until you revoke it"),
    ]
    return [(name, printable(text)) for name, text in found]


def members(manifest: Manifest, site: str, vouched: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    """Name, fingerprint of the root key, and what this hospital says of it."""
    for member in manifest.members:
        word = "you" if member.site == site else "vouched for" if member.site in vouched else ""
        yield member.site, keys.fingerprint(member.root), word


def _what_runs(manifest: Manifest) -> str:
    if manifest.model.package:
        return f"the researcher's own code, package {manifest.model.package}: read it before you grant it"
    return f"the audited template {manifest.model.template}"


def _on(manifest: Manifest, dataset: str) -> str:
    used = [column.name for column in manifest.contract.columns if column.role != "ignored"]
    reach = "; own code could read the whole file" if manifest.model.package else ""
    return f"the data set {dataset}, {len(used)} columns: {', '.join(used)}{reach}"


def _cohort(conditions: Sequence[Condition]) -> str:
    return " and ".join(f"{c.column} {c.op} {c.value}" for c in conditions) or "all rows"


def _resources(given: Resources) -> str:
    gibibytes = 2**30
    gpus = f", {given.gpus} GPU{'s' * (given.gpus > 1)}" if given.gpus else ""
    workers = f"; on Kubernetes {given.min_workers} to {given.max_workers} workers more get the same"
    return (
        f"{given.cpus} processor core{'s' * (given.cpus > 1)}{gpus}, {given.memory / gibibytes:g} GiB of memory, "
        f"{given.disk / gibibytes:g} GiB of disk, {given.fit_seconds} s a round; beyond them it is ended"
        f"{workers if given.max_workers else ''}"
    )


def _choice(name: str, choice: Any) -> str:
    if isinstance(choice, Enumeration):
        return f"{name} {'|'.join(choice.values)}"
    return f"{name} {choice.minimum} to {choice.maximum}"
