"""The command `kubectl koinon`: its verbs."""

import time
from typing import Annotated

import typer

from koinon.cli import output, root
from koinon.cli.kube import consent, doctor, gather, hospital, status
from koinon.cli.kube.hospital import Context, Namespace

_HELP = """A hospital's consent and its state, where its IT already works.

\b
  kubectl koinon status             one screen: site, grants, clusters, last round
  kubectl koinon grant PROJECT      in plain words first, then signed and applied
  kubectl koinon revoke PROJECT     ends it, and waits until nothing of it is left
  kubectl koinon logs [PROJECT]     of the agent, the operator or a project's training
  kubectl koinon doctor             what is wrong, and what to do"""

app = typer.Typer(
    name="kubectl koinon",
    cls=root.Root,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("grant")(consent.grant)
app.command("revoke")(consent.revoke)


@app.command("status")
def show(namespace: Namespace = None, context: Context = None, json: output.Json = False) -> None:
    """One screen about the hospital: its site, its grants with their clusters, the last round.

    \b
    Example
      kubectl koinon status -n lyon
    """
    picture = gather.look(hospital.find(namespace, context))
    if json:
        output.emit(status.document(picture))
    else:
        status.show(picture)


@app.command("logs")
def logs(
    project: Annotated[str, typer.Argument(help="A granted project, or agent (the default), or operator.")] = "agent",
    namespace: Namespace = None,
    context: Context = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(min=1, help="Lines of each pod.")] = 100,
) -> None:
    """The log of the agent, the operator, or the pods of a project's training.

    \b
    Examples
      kubectl koinon logs -n lyon -f
      kubectl koinon logs heart -n lyon
    """
    found = hospital.find(namespace, context)
    if project in ("agent", "operator"):
        place, selected = found.namespace, f"app.kubernetes.io/component={project}"
    else:
        place, selected = found.work, f"koinon.dev/project={found.grant(project)['spec']['manifest'][:12]}"
    found.kubectl.replace_process(
        "logs", "--selector", selected, "--all-containers", "--prefix", f"--tail={tail}",
        *(["--follow"] if follow else []), namespace=place,
    )  # fmt: skip


@app.command("doctor")
def examine(namespace: Namespace = None, context: Context = None, json: output.Json = False) -> None:
    """Examine a hospital's installation and say what to repair. Ends with 1 if something must be.

    \b
    Example
      kubectl koinon doctor -n lyon
    """
    findings = doctor.examine(gather.look(hospital.find(namespace, context)), time.time())
    if json:
        output.emit([finding.as_json() for finding in findings])
    else:
        for finding in findings:
            output.say(finding.line())
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """The console script `kubectl-koinon`, which kubectl finds on the PATH."""
    app()
