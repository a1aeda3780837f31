"""`koinon grant` and `koinon revoke`: a hospital's consent, in plain words first."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinon.cli import output

if TYPE_CHECKING:
    from koinon.domain.manifest import Manifest

Site = Annotated[Path, typer.Option("--site", help="The site's folder, with its root key for this command.")]
Project = Annotated[str, typer.Argument(help="Name or hash of the project, as this site received it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def add_to(app: typer.Typer) -> None:
    app.command("grant")(grant)
    app.command("revoke")(revoke)


def grant(
    project: Project,
    site: Site = Path(),
    dataset: Annotated[str | None, typer.Option(help="Which data set; not needed if there is one.")] = None,
    days: Annotated[float, typer.Option(min=0.0001, max=3650, help="How long the grant holds.")] = 90,
    vouch: Annotated[
        list[str] | None, typer.Option(help="A hospital whose fingerprint you compared; repeat it.")
    ] = None,
    vouch_all: Annotated[bool, typer.Option("--vouch-all", help="You compared the fingerprints of all.")] = False,
    min_sites: Annotated[int, typer.Option(min=3, help="Smallest number of hospitals in a sum.")] = 3,
    min_others: Annotated[int, typer.Option(min=2, help="How many of them besides you must be vouched for.")] = 2,
    cpus: Annotated[int, typer.Option(min=1, help="Processor cores its training may use.")] = 1,
    memory: Annotated[float, typer.Option(min=1, help="GiB of memory; training beyond it is ended.")] = 4,
    disk: Annotated[float, typer.Option(min=0.1, help="GiB of disk; training beyond it is ended.")] = 16,
    fit_seconds: Annotated[int, typer.Option(min=1, help="Longest training of a round; then it is ended.")] = 3_600,
    manifest: Annotated[Path | None, typer.Option(help="The manifest's file, if the agent has not fetched it.")] = None,
    yes: Yes = False,
    json: output.Json = False,
) -> None:
    """Say in plain words what a project would do here, then sign. Works offline, with the hospital's root key.

    The agent takes the grant up at once. It ends by itself, or with `koinon revoke`.

    \b
    Examples
      koinon grant heart --site lyon --vouch nice --vouch lille
      koinon grant heart --site lyon --dataset heart --days 30 --vouch-all --yes
      koinon grant heart --site lyon --vouch-all --cpus 4 --memory 16 --fit-seconds 600
    """
    import time

    from koinon.agent import config, setup
    from koinon.cli import plainwords
    from koinon.domain import errors
    from koinon.domain.grant import Resources

    resources = Resources(cpus=cpus, memory=int(memory * 2**30), disk=int(disk * 2**30), fit_seconds=fit_seconds)
    found = _manifest(site, project, manifest)
    settings = config.read(site)
    name = dataset or (next(iter(settings.datasets)) if len(settings.datasets) == 1 else None)
    if name is None:
        listed = ", ".join(settings.datasets) or "none: koinon site init --data"
        raise errors.Invalid("Say which data set.", where="--dataset", todo=f"This site has {listed}.")
    vouched = [m.site for m in found.members if m.site != settings.name] if vouch_all else list(vouch or [])
    words = plainwords.lines(
        found, site=settings.name, dataset=name, days=days, vouched=vouched, resources=resources, min_sites=min_sites,
        min_others=min_others,
    )  # fmt: skip
    if not (json and yes):  # who is asked has seen the page; stdout stays JSON
        with contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
            _explain(found, settings.name, vouched, words)
    if len(vouched) < min_others:
        raise errors.Invalid(
            f"A sum needs {min_others} other hospitals that you vouched for; you named {len(vouched)}.",
            where="--vouch",
            todo="Compare fingerprints by telephone, then name those hospitals.",
        )
    if not yes:
        typer.confirm("Grant this?", abort=True, err=True)
    signed = setup.make_grant(
        site,
        found,
        dataset=name,
        vouched=vouched,
        days=days,
        now=time.time(),
        resources=resources,
        min_sites=min_sites,
        min_others=min_others,
    )
    if json:
        output.emit({"site": signed.site, "manifest": signed.manifest, "expires": signed.expires, "dataset": name})
    else:
        output.say(f"{signed.site} granted {found.name} until {output.when(signed.expires)}.")
        output.say(f"To end it before: koinon revoke {found.name} --site {site}")


def revoke(project: Project, site: Site = Path(), yes: Yes = False, json: output.Json = False) -> None:
    """End a project here and now.

    Its training stops at once, and every grant made until now is void.

    \b
    Example
      koinon revoke heart --site lyon
    """
    import time

    from koinon.agent import setup

    found = _manifest(site, project, None)
    if not yes:
        typer.confirm(f"Revoke {found.name} ({found.digest()[:12]})?", abort=True, err=True)
    signed = setup.revoke(site, found.digest(), now=time.time())
    if json:
        output.emit({"site": signed.site, "manifest": signed.manifest, "time": signed.time})
    else:
        output.say(f"{signed.site} revoked {found.name}. Its agent stops the project's training at once.")


def _manifest(site: Path, project: str, file: Path | None) -> "Manifest":
    """The manifest by name, hash or start of its hash, among those at the site."""
    from koinon.agent.config import Folder
    from koinon.domain import errors
    from koinon.domain.manifest import Manifest

    if file is not None:
        found = Manifest.parse(file.read_bytes(), where=str(file))
        if project not in (found.name, found.digest()) and not found.digest().startswith(project):
            raise errors.Invalid(f"This file is the manifest of {found.name}, not of {project}.", where=str(file))
        return found
    known = [
        Manifest.parse(path.read_bytes(), where=path.name) for path in sorted(Folder(site).manifests.glob("*.json"))
    ]
    named = [
        m for m in known if project in (m.name, m.digest()) or (len(project) >= 4 and m.digest().startswith(project))
    ]
    if len(named) == 1:
        return named[0]
    if named:
        raise errors.Conflict(f"{len(named)} projects are called {project}.", todo="Name one by its hash.")
    listed = ", ".join(sorted(m.name for m in known)) or "none"
    raise errors.NotFound(
        f"This site has received no project {project}.",
        where=str(site),
        todo=f"It has {listed}. The agent fetches projects while it runs: koinon site serve {site}",
    )


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
