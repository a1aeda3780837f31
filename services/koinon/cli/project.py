"""`koinon project`: what is trained, on which columns, at which hospitals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinon.cli import output

if TYPE_CHECKING:
    from koinon.client.projects import Project

app = typer.Typer(help="Projects: one immutable manifest each.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Its name; if a folder of this name holds a model.py, its code.")],
    code: Annotated[Path | None, typer.Option(help="Folder with your model.py.")] = None,
    contract: Annotated[
        Path | None, typer.Option(help="The data contract; by default contract.yaml beside the code.")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="A hospital; repeat it. By default every enrolled one.")
    ] = None,
    purpose: Annotated[str, typer.Option(help="What for, in the words a hospital reads before it grants.")] = "",
    template: Annotated[bool, typer.Option("--template", help="Train the audited template, no code of yours.")] = False,
    follows: Annotated[str | None, typer.Option(help="The project that this one continues.")] = None,
    options: Annotated[
        Path | None, typer.Option(help="YAML with metrics, cohorts, parameters, limits, protection, deadlines.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the grants; exit 4 if one is missing then.")] = 0,
    json: output.Json = False,
) -> None:
    """Freeze a manifest and show it to the hospitals.

    Each hospital grants it or not. A repeated call with the same content gives the same project.

    \b
    Examples
      koinon project create risk
      koinon project create risk --site lyon --site nice --site lille --wait 3600
      koinon project create heart --template --contract heart.yaml --purpose "Risk of heart disease"
    """
    from koinon.client import hub as hubs
    from koinon.domain import contract as contracts

    folder = code or (Path(name) if not template and Path(name, "model.py").is_file() else None)
    agreed = contract or (folder or Path()) / "contract.yaml"
    extra = contracts.read_yaml(options.read_text(), where=str(options)) if options else {}
    if "metrics" in extra:
        extra["metric_names"] = extra.pop("metrics")
    with hubs.connect() as hub:
        project = hub.create_project(
            name, contract=agreed, code=folder, sites=site or None, purpose=purpose, follows=follows, **extra
        )
        if wait:
            project.wait_for_grants(wait, say=output.note)
        if json:
            output.emit(_row(project, detail=True))
            return
        output.say(f"Project {project.name} is {project.hash}")
        output.say(
            f"Waiting for the grants of {', '.join(project.sites)}; at each hospital: koinon grant {project.name}"
        )
        output.say(f"Then: koinon run submit {project.name}")


@app.command("list")
def list_(json: output.Json = False) -> None:
    """Every project of the hub.

    \b
    Example
      koinon project list --json
    """
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        found = hub.projects()
        if json:
            output.emit([_row(project) for project in found])
            return
        output.table(
            ("project", "hash", "hospitals", "created", "purpose"),
            (
                (p.name, p.hash[:12], len(p.sites), output.when(p.manifest.created), p.manifest.purpose[:50])
                for p in found
            ),
            none="No project yet: koinon project create NAME",
        )


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name or hash.")],
    manifest: Annotated[bool, typer.Option("--manifest", help="Print the manifest itself, as it was hashed.")] = False,
    json: output.Json = False,
) -> None:
    """One project: what it is, who granted it, what a run may vary.

    \b
    Examples
      koinon project show risk
      koinon project show risk --manifest > manifest.json
    """
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        project = hub.project(name)
        if manifest:
            output.say(project.manifest.encode().decode())
            return
        if json:
            output.emit(_row(project, detail=True))
            return
        _print(project)


def _row(project: "Project", *, detail: bool = False) -> dict[str, object]:
    row: dict[str, object] = {
        "name": project.name,
        "hash": project.hash,
        "sites": project.sites,
        "created": project.manifest.created,
        "purpose": project.manifest.purpose,
    }
    if detail:
        row["grants"] = project.grants()
        row["manifest"] = project.manifest.model_dump(mode="json")
    return row


def _print(project: "Project") -> None:
    manifest = project.manifest
    code = manifest.model.package
    output.fields(
        (
            ("project", project.name),
            ("hash", project.hash),
            ("purpose", manifest.purpose),
            ("code", f"package {code[:12]}" if code else f"template {manifest.model.template}"),
            ("inputs", manifest.contract.inputs()),
            ("metrics", manifest.metrics),
            ("cohorts", tuple(manifest.cohorts)),
            ("at least", f"{manifest.protection.min_sites} hospitals in every sum"),
            ("limits", f"{manifest.limits.rounds} rounds, {manifest.limits.releases} results"),
            ("results to", tuple(r.name for r in manifest.recipients)),
        )
    )
    output.say()
    output.table(
        ("hospital", "grant", "until"),
        ((site, grant["state"], output.when(grant["expires"])) for site, grant in project.grants().items()),
        none="No hospital.",
    )
    output.say()
    output.table(
        ("parameter", "default", "may be"),
        (
            (name, choice.default, choice.values if choice.kind == "enum" else f"{choice.minimum} to {choice.maximum}")
            for name, choice in manifest.parameters.items()
        ),
        none="A run varies nothing.",
    )
