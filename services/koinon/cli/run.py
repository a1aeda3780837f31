"""`koinon run`: submit, watch, compare, download."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinon.cli import output

if TYPE_CHECKING:
    from koinon.client.hub import Hub
    from koinon.client.projects import Project
    from koinon.client.runs import Run

app = typer.Typer(help="Runs: one choice of parameters each, trained round by round.", no_args_is_help=True)

RunId = Annotated[str | None, typer.Argument(help="Its id or the start of it; by default your newest run.")]
Deadline = Annotated[float | None, typer.Option(help="Seconds to wait at most; exit 4 then. The run goes on.")]


@app.command("submit")
def submit(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROJECT] [NAME=VALUE]...", help="The project, and what the run varies."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Start another run even if this one was submitted before.")
    ] = False,
    key: Annotated[str | None, typer.Option(help="Your own idempotency key.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch it until it is over.")] = False,
    timeout: Deadline = None,
    json: output.Json = False,
) -> None:
    """Submit a run. Safe to repeat: the same words find the same run, unless it failed.

    A name or value outside the manifest is an error before anything is sent.

    \b
    Examples
      koinon run submit
      koinon run submit heart rounds=15 strategy=fedyogi learning_rate=0.003162 server_learning_rate=0.01
      koinon run submit heart rounds=5 --watch --timeout 600
    """
    from koinon.cli import watching
    from koinon.client import hub as hubs

    project_name, choices = _split(words or [])
    with hubs.connect() as hub:
        project = hub.project(project_name) if project_name else _only_project(hub)
        run = project.submit(key=key, again=again, **choices)
        if watch:
            watching.follow(run, timeout=timeout, json=json)
            return
        if json:
            output.emit(run.row)
            return
        if run.created_now:
            output.say(f"Run {run.id} of {project.name} is {run.state}.")
        else:
            output.say(f"Run {run.id} was submitted before and is {run.state}; --again starts another.")
        output.say(f"Next: koinon run watch {run.id}")


@app.command("watch")
def watch(run: RunId = None, timeout: Deadline = None, json: output.Json = False) -> None:
    """Follow a run: one line a round, from its first one on. Ctrl-C stops watching, not the run.

    With --json one object a line. Ends with 0 when the run completed, 1 when it failed, 3 when a site refused it.

    \b
    Examples
      koinon run watch
      koinon run watch 7f3a --timeout 600
    """
    from koinon.cli import watching
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        watching.follow(_run(hub, run), timeout=timeout, json=json)


@app.command("list")
def list_(
    project: Annotated[str | None, typer.Option(help="Only of this project.")] = None,
    state: Annotated[str | None, typer.Option(help="queued, running, completed, failed or cancelled.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    json: output.Json = False,
) -> None:
    """The newest runs, with state and elapsed time.

    \b
    Examples
      koinon run list --project heart
      koinon run list --state running --json
    """
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        found = hub.runs(project=project, state=state, limit=limit)
        if json:
            output.emit([run.row for run in found])
            return
        names = {p.hash: p.name for p in hub.projects()}
        output.table(
            ("run", "project", "state", "submitted", "took", "strategy", "rounds"),
            (
                (
                    run.id,
                    names.get(str(run.row["project"]), str(run.row["project"])[:12]),
                    run.state,
                    output.when(run.row.get("created")),
                    _took(run),
                    run.parameters.get("strategy"),
                    run.parameters.get("rounds"),
                )
                for run in found
            ),
            none="No run yet: koinon run submit PROJECT",
        )


@app.command("show")
def show(
    run: RunId = None,
    timing: Annotated[bool, typer.Option("--timing", help="Split each round's time by part.")] = False,
    json: output.Json = False,
) -> None:
    """One run: its state and for whom it waits.

    With --timing, where each round's time goes and at which hospital.

    \b
    Examples
      koinon run show 7f3a
      koinon run show 7f3a --timing
    """
    from koinon.cli import watching
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        found = _run(hub, run)
        found.refresh()
        if json:
            output.emit({**found.row, **({"rounds": found.rounds()} if timing else {})})
            return
        watching.show(found, timing=timing)


@app.command("cancel")
def cancel(run: Annotated[str, typer.Argument(help="Its id or the start of it.")], json: output.Json = False) -> None:
    """Stop a run. What its rounds committed stays; nothing more is trained.

    \b
    Example
      koinon run cancel 7f3a
    """
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        found = hub.run(run).cancel()
        if json:
            output.emit(found.row)
        else:
            output.say(f"Run {found.id} is {found.state}.")


@app.command("download")
def download(
    run: RunId = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file; by default RUN.safetensors.")] = None,
    key: Annotated[Path | None, typer.Option(help="Your key file; by default that of koinon key new.")] = None,
    json: output.Json = False,
) -> None:
    """Fetch the result, opened with your key.

    It is checked against the manifest and written as safetensors.

    \b
    Examples
      koinon run download 7f3a
      koinon run download 7f3a --out heart.safetensors
    """
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        found = _run(hub, run)
        path = found.download(out or Path(f"{found.id}.safetensors"), key=key)
        if json:
            output.emit({"run": found.id, "file": str(path), "bytes": path.stat().st_size})
        else:
            output.say(f"{path} ({output.size(path.stat().st_size)}), opened with your key and verified.")


@app.command("compare")
def compare(runs: Annotated[list[str], typer.Argument(help="Two or more runs.")], json: output.Json = False) -> None:
    """Set runs side by side.

    What differs among their parameters, and what their last models scored.

    \b
    Example
      koinon run compare 7f3a 91bc
    """
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        rows = hub.compare(runs)
        if json:
            output.emit(rows)
            return
        heads = list(dict.fromkeys(name for row in rows for name in row))
        output.table(heads, ([row.get(head) for head in heads] for row in rows), none="No runs.")


@app.command("delete")
def delete(
    run: Annotated[str, typer.Argument(help="Its id or the start of it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: output.Json = False,
) -> None:
    """Remove a finished run and its artifacts from the hub. What it spent of the limits stays spent.

    \b
    Example
      koinon run delete 7f3a --yes
    """
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        found = hub.run(run)
        if not yes:
            typer.confirm(f"Delete run {found.id} ({found.state}) and its artifacts for good?", abort=True, err=True)
        found.delete()
        if json:
            output.emit({"run": found.id, "deleted": True})
        else:
            output.say(f"Run {found.id} is deleted.")


def _split(words: list[str]) -> tuple[str | None, dict[str, str]]:
    """The project, if one is named, and the choices."""
    from koinon.domain import errors

    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise errors.Invalid(f'"{names[1]}" is not NAME=VALUE.', where="koinon run submit", todo="Like rounds=15")
    return (names[0] if names else None), dict(word.split("=", 1) for word in words if "=" in word)


def _only_project(hub: "Hub") -> "Project":
    from koinon.domain import errors

    known = hub.projects()
    if len(known) != 1:
        listed = ", ".join(p.name for p in known) or "none yet"
        raise errors.Invalid("Say which project.", where="koinon run submit", todo=f"This hub has: {listed}.")
    return known[0]


def _run(hub: "Hub", name: str | None) -> "Run":
    from koinon.domain import errors

    if name:
        return hub.run(name)
    newest = hub.runs(limit=1)
    if not newest:
        raise errors.NotFound("There is no run yet.", todo="koinon run submit PROJECT")
    return newest[0]


def _took(run: "Run") -> str:
    import time

    started = run.row.get("started")
    return output.span((run.row.get("finished") or time.time()) - started) if started else ""
