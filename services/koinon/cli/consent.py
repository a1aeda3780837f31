"""`koinon grant` and `koinon revoke`: a hospital's consent, in plain words first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinon.cli import granting, output

if TYPE_CHECKING:
    from koinon.domain.manifest import Manifest

Site = Annotated[Path, typer.Option("--site", help="The site's folder, with its root key for this command.")]


def add_to(app: typer.Typer) -> None:
    app.command("grant")(grant)
    app.command("revoke")(revoke)


def grant(
    project: granting.Project,
    site: Site = Path(),
    dataset: granting.Dataset = None,
    days: granting.Days = 90,
    vouch: granting.Vouch = None,
    vouch_all: granting.VouchAll = False,
    min_sites: granting.MinSites = 3,
    min_others: granting.MinOthers = 2,
    cpus: granting.Cpus = 1,
    memory: granting.Memory = 4,
    disk: granting.Disk = 16,
    fit_seconds: granting.FitSeconds = 3_600,
    min_workers: granting.MinWorkers = 0,
    max_workers: granting.MaxWorkers = 0,
    gpus: granting.Gpus = 0,
    manifest: granting.ManifestFile = None,
    yes: granting.Yes = False,
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

    resources = granting.resources(cpus, memory, disk, fit_seconds, min_workers, max_workers, gpus)
    found = _manifest(site, project, manifest)
    settings = config.read(site)
    name = granting.dataset(dataset, list(settings.datasets), "koinon site init --data")
    vouched = granting.vouched(found, settings.name, vouch, vouch_all)
    granting.ask(
        found, settings.name, dataset=name, days=days, vouched=vouched, resources=resources, min_sites=min_sites,
        min_others=min_others, yes=yes, json=json,
    )  # fmt: skip
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


def revoke(
    project: granting.Project, site: Site = Path(), yes: granting.Yes = False, json: output.Json = False
) -> None:
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
        granting.check_name(found, project, str(file))
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
