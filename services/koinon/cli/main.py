"""The command: its verbs by noun, and what its exit codes mean."""

from typing import Annotated

import typer

from koinon.cli import (
    consent,
    contract,
    hub,
    key,
    login,
    project,
    research,
    root,
    run,
    showcase,
    site,
    user,
)

_HELP = """Hospitals train models together; every record and every single update stays inside its walls.

\b
Try it        koinon demo              four hospitals on this machine, end to end
              koinon up                the same, left running to play with
Researchers   koinon init risk         a model, a contract and a test that run as they are
              koinon check risk        try them here before anything is sent
              koinon login ADDRESS     once; then: project create, run submit, run watch
Hospitals     koinon site init|serve   koinon grant PROJECT   koinon revoke PROJECT
Operators     koinon hub serve|invite|backup|restore   koinon user add NAME

\b
Exit codes    0 done   1 failed   2 usage   3 refused by a site   4 waiting at the deadline
Everywhere    --json for programs   --debug for tracebacks   --help with examples

Everything works offline; nothing is sent anywhere but to the hub you name."""

app = typer.Typer(
    name="koinon",
    cls=root.Root,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help starts in half the time, and pipes well
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import koinon

        print(f"koinon {koinon.__version__}")
        raise typer.Exit


@app.callback()
def koinon_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of one line.")] = False,
) -> None:
    """Options of the command itself. `--debug` is taken by root.Root before anything is parsed."""


for noun in (showcase, research, login, consent):
    noun.add_to(app)
for noun, group in (
    (contract, "contract"),
    (project, "project"),
    (run, "run"),
    (key, "key"),
    (site, "site"),
    (hub, "hub"),
    (user, "user"),
):
    app.add_typer(noun.app, name=group)


def main() -> None:
    """The console script."""
    app()
