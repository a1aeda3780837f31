"""`koinon key`: the key that opens your results."""

from pathlib import Path
from typing import Annotated

import typer

from koinon.cli import output

app = typer.Typer(help="The key that results are sealed to.", no_args_is_help=True)


@app.command("new")
def new(
    out: Annotated[Path | None, typer.Option(help="Where to; by default in your configuration folder.")] = None,
    json: output.Json = False,
) -> None:
    """Make a recipient key, readable by you alone. Back it up: without it no result can be opened.

    \b
    Examples
      koinon key new
      koinon key new --out partner.age
    """
    from koinon.client import keyfile, settings

    path = out or settings.identity_path()
    recipient = keyfile.create(path)
    if json:
        output.emit({"recipient": recipient, "file": str(path)})
        return
    output.say(f"Your recipient (anyone may know it): {recipient}")
    output.note(f"The key itself: {path}. Back it up; without it no result can be opened.")


@app.command("show")
def show(
    file: Annotated[Path | None, typer.Option(help="Another key file.")] = None, json: output.Json = False
) -> None:
    """Print the recipient of your key, to be named in a project. Never the key.

    \b
    Example
      koinon key show
    """
    from koinon.client import keyfile, settings

    path = file or settings.identity_path()
    recipient = keyfile.load(path).recipient
    if json:
        output.emit({"recipient": recipient, "file": str(path)})
    else:
        output.say(recipient)
