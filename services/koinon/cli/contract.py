"""`koinon contract`: what a project needs of a hospital's table."""

from pathlib import Path
from typing import Annotated

import typer

from koinon.cli import output

app = typer.Typer(help="The data contract: columns, types, ranges, preprocessing.", no_args_is_help=True)


@app.command("infer")
def infer(
    data: Annotated[Path, typer.Argument(help="A CSV file of your own.")],
    target: Annotated[str | None, typer.Option(help="The column to predict; by default the last one.")] = None,
    json: output.Json = False,
) -> None:
    """Propose a contract from your own CSV file.

    Read and edit it; nothing is sent.

    Types, levels and ranges are those of your file alone; other hospitals may have more. Widen them.

    \b
    Examples
      koinon contract infer my.csv > contract.yaml
      koinon contract infer my.csv --target outcome
    """
    from koinon.client import infer as inference

    proposal = inference.propose(data, target)
    if json:
        output.emit(proposal.contract.model_dump(mode="json"))
        return
    output.say(proposal.yaml().rstrip())


@app.command("show")
def show(file: Annotated[Path, typer.Argument(help="A contract in YAML.")], json: output.Json = False) -> None:
    """Check a contract and print what a model will see.

    \b
    Example
      koinon contract show contract.yaml
    """
    from koinon.client import manifests

    agreed = manifests.read_contract(file)
    if json:
        output.emit({"inputs": agreed.inputs(), "features": agreed.feature_names(), "hash": agreed.digest()})
        return
    output.table(
        ("column", "type", "role", "prepare", "range or levels"),
        (
            (c.name, c.type, c.role, c.prepare, c.levels or f"{c.minimum or ''} to {c.maximum or ''}")
            for c in agreed.columns
        ),
        none="No columns.",
    )
    output.say(f"{agreed.inputs()} inputs: {', '.join(agreed.feature_names())}")
