"""`koinon init` and `koinon check`: from nothing to a model that trains, offline."""

from pathlib import Path
from typing import Annotated

import typer

from koinon.cli import output


def add_to(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("check")(check)


def init(
    name: Annotated[str, typer.Argument(help="Name of the folder and of the model.")],
    contract: Annotated[Path | None, typer.Option(help="Start from this contract instead of the example's.")] = None,
    json: output.Json = False,
) -> None:
    """Write a model of 20 lines, a contract and a test. Works offline.

    All three run as they are.

    \b
    Examples
      koinon init risk
      koinon init risk --contract heart.yaml
      python -m pytest risk
    """
    from koinon.cli import scaffold

    written = scaffold.write(Path(name), contract)
    if json:
        output.emit({"folder": name, "files": [str(path) for path in written]})
        return
    for path in written:
        output.say(f"wrote {path}")
    output.say(f"Next: koinon check {name}")


def check(
    folder: Annotated[Path, typer.Argument(help="Folder with your model.py.")],
    data: Annotated[Path | None, typer.Option(help="Your own CSV file; without it rows are made up.")] = None,
    contract: Annotated[Path | None, typer.Option(help="By default contract.yaml in the folder.")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]...", help="Parameters of the run, like learning_rate=0.01"),
    ] = None,
    json: output.Json = False,
) -> None:
    """Try a model here, in seconds, before anything is sent.

    Columns, shapes, local steps, NaN, the same weights for the same seed, and one round of the real protocol. An
    error of your own code shows its traceback.

    \b
    Examples
      koinon check risk
      koinon check risk --data my.csv learning_rate=0.01 local_steps=200
    """
    import dataclasses
    import sys
    import traceback

    from koinon.cli import trial
    from koinon.domain import errors

    choices = {}
    for word in parameters or []:
        key, separator, value = word.partition("=")
        if not separator:
            raise errors.Invalid(f'"{word}" is not NAME=VALUE.', where="koinon check", todo="Like learning_rate=0.01")
        choices[key] = value
    silent = (lambda _: None) if json else None
    try:
        report = trial.check(folder, data=data, contract=contract or folder / "contract.yaml", say=silent, **choices)
    except (errors.KoinonError, typer.Exit):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if folder.resolve() in Path(frame.filename).resolve().parents]
        last = own[-1] if own else frames[-1]
        if not json:
            shown = frames[frames.index(own[0]) :] if own else frames
            print("".join(["Traceback:\n", *traceback.format_list(shown)]), end="", file=sys.stderr)
        raise errors.Failed(
            f"{type(error).__name__}: {error}.",
            where=f"{Path(last.filename).name}:{last.lineno}",
            todo="This is your own code; nothing was sent.",
        ) from error
    if json:
        output.emit(dataclasses.asdict(report))
    else:
        output.say(f"It works. Next: koinon project create {folder.name}")
