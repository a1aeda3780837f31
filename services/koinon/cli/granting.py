"""What every way to grant has in common: its options, the page to read first, and the question."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinon.cli import output

if TYPE_CHECKING:
    from koinon.domain.grant import Resources
    from koinon.domain.manifest import Manifest

Project = Annotated[str, typer.Argument(help="Name or hash of the project, as this site received it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Dataset = Annotated[str | None, typer.Option(help="Which data set; not needed if there is one.")]
Days = Annotated[float, typer.Option(min=0.0001, max=3650, help="How long the grant holds.")]
Vouch = Annotated[list[str] | None, typer.Option(help="A hospital whose fingerprint you compared; repeat it.")]
VouchAll = Annotated[bool, typer.Option("--vouch-all", help="You compared the fingerprints of all.")]
MinSites = Annotated[int, typer.Option(min=3, help="Smallest number of hospitals in a sum.")]
MinOthers = Annotated[int, typer.Option(min=2, help="How many of them besides you must be vouched for.")]
Cpus = Annotated[int, typer.Option(min=1, help="Processor cores its training may use.")]
Memory = Annotated[float, typer.Option(min=1, help="GiB of memory; training beyond it is ended.")]
Disk = Annotated[float, typer.Option(min=0.1, help="GiB of disk; training beyond it is ended.")]
FitSeconds = Annotated[int, typer.Option(min=1, help="Longest training of a round; then it is ended.")]
MinWorkers = Annotated[int, typer.Option(min=0, help="On Kubernetes: Ray pods beside the head, at least.")]
MaxWorkers = Annotated[int, typer.Option(min=0, max=1000, help="And at most, as the hospital has room.")]
Gpus = Annotated[int, typer.Option(min=0, max=64, help="GPUs of each of its Ray pods.")]
ManifestFile = Annotated[
    Path | None, typer.Option("--manifest", help="The manifest's file, if the agent has not fetched it.")
]


def resources(
    cpus: int, memory: float, disk: float, fit_seconds: int, min_workers: int, max_workers: int, gpus: int
) -> "Resources":
    """Raises Invalid for bounds that contradict each other. `memory` and `disk` in GiB."""
    from koinon.domain.grant import Resources

    return Resources.of(
        {
            "cpus": cpus,
            "memory": int(memory * 2**30),
            "disk": int(disk * 2**30),
            "fit_seconds": fit_seconds,
            "min_workers": min_workers,
            "max_workers": max_workers,
            "gpus": gpus,
        },
        where="resources",
    )


def dataset(wanted: str | None, known: Sequence[str], todo: str) -> str:
    """The data set to grant. Raises Invalid if none was named and the site has not just one; `todo` declares one."""
    from koinon.domain import errors

    if wanted is not None:
        return wanted
    if len(known) == 1:
        return known[0]
    listed = ", ".join(known) or f"none: {todo}"
    raise errors.Invalid("Say which data set.", where="--dataset", todo=f"This site has {listed}.")


def vouched(manifest: "Manifest", site: str, named: list[str] | None, everybody: bool) -> list[str]:
    return [m.site for m in manifest.members if m.site != site] if everybody else list(named or [])


def ask(
    manifest: "Manifest",
    site: str,
    *,
    dataset: str,
    days: float,
    vouched: list[str],
    resources: "Resources",
    min_sites: int,
    min_others: int,
    yes: bool,
    json: bool,
) -> None:
    """Shows in plain words what a grant would sign, and asks. Raises Invalid for too few vouched; aborts on a no."""
    from koinon.cli import plainwords
    from koinon.domain import errors

    words = plainwords.lines(
        manifest, site=site, dataset=dataset, days=days, vouched=vouched, resources=resources, min_sites=min_sites,
        min_others=min_others,
    )  # fmt: skip
    if not (json and yes):  # who is asked has seen the page; stdout stays JSON
        with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
            _explain(manifest, site, vouched, words)
    if len(vouched) < min_others:
        raise errors.Invalid(
            f"A sum needs {min_others} other hospitals that you vouched for; you named {len(vouched)}.",
            where="--vouch",
            todo="Compare fingerprints by telephone, then name those hospitals.",
        )
    if not yes:
        typer.confirm("Grant this?", abort=True, err=True)


def check_name(manifest: "Manifest", project: str, where: str) -> None:
    """Raises Invalid if `project` is neither the manifest's name nor (the start of) its hash."""
    from koinon.domain import errors

    if project != manifest.name and not (len(project) >= 4 and manifest.digest().startswith(project)):
        raise errors.Invalid(f"This is the manifest of {manifest.name}, not of {project}.", where=where)


def _explain(manifest: "Manifest", site: str, vouched: list[str], lines: list[tuple[str, str]]) -> None:
    from koinon.cli import plainwords

    output.say(f"Project {manifest.name}  {manifest.digest()}")
    output.say()
    output.fields(lines)
    output.say()
    output.table(
        ("hospital", "fingerprint of its root key", ""),
        plainwords.members(manifest, site, vouched),
        none="No hospital.",
    )
    output.say()
