"""A run as one follows it: a bar, one line a round, and whom it waits for."""

import json as jsonlib
from dataclasses import asdict
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from koinon.cli import output, root
from koinon.client import progress
from koinon.client.progress import Step
from koinon.client.runs import Run

_PARTS = ("init", "fetch", "train", "steps", "keys", "shares", "masked", "survivors", "unmask", "commit")


def follow(run: Run, *, timeout: float | None, json: bool) -> None:
    """Prints steps until the run is over. Ctrl-C stops watching and says that the run goes on."""
    try:
        if json:
            for step in run.watch(timeout):
                print(jsonlib.dumps(asdict(step)), flush=True)
            return
        console = Console(highlight=False)
        with Live(console, run) as live:
            for step in run.watch(timeout, waits=live.waits):
                live.advance(step)
        console.print(f"Run {run.id} {run.state}. Next: koinon run download {run.id}")
    except KeyboardInterrupt:
        output.note(f"Stopped watching; run {run.id} goes on. koinon run cancel {run.id} stops it.")
        raise typer.Exit(root.INTERRUPTED) from None


def heading(metric: str) -> str:
    return f"{'round':>9}  {metric:>9}  {'seconds':>7}  {'uploaded':>9}  sites"


def line(step: Step, rounds: int, metric: str, members: int) -> str:
    """One round in one line. The metric is that of the model the round started from."""
    value = f"{step.metrics[metric]:9.4f}" if metric in step.metrics else " " * 9
    name = {"init": "init", "evaluate": "evaluate"}.get(step.kind, f"{step.round}/{rounds}")
    missing = f"  without {', '.join(step.missing)}" if step.missing else ""
    void = "  void: too few shares came, the model stays" if step.void else ""
    count = f"{len(step.sites)}/{members}" if step.sites else ""
    return f"{name:>9}  {value}  {step.total_seconds:7.2f}  {output.size(step.bytes):>9}  {count}{missing}{void}"


class Live:
    """A bar for the run beneath the lines of its rounds, and whom it waits for beside it."""

    def __init__(self, console: Console, run: Run, *, title: str = "") -> None:
        manifest = run.manifest()
        self._metric, self._members = manifest.metrics[0], len(manifest.members)
        self._rounds = int(run.parameters.get("rounds", 0))
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(30),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[state]}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(title or f"run {run.id}", total=self._rounds, state="")

    def __enter__(self) -> Self:
        self._console.print(f"[dim]{heading(self._metric)}[/]")
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, step: Step) -> None:
        self._bar.print(line(step, self._rounds, self._metric, self._members))
        if step.kind == "train" and not step.void:
            self._bar.advance(self._task)

    def waits(self, text: str) -> None:
        self._bar.update(self._task, state=text[:100])


def show(run: Run, *, timing: bool) -> None:
    """What `koinon run show` prints."""
    row = run.row
    output.fields(
        (
            ("run", run.id),
            ("project", run.manifest().name),
            ("state", run.state),
            ("reason", run.reason),
            ("submitted", output.when(row.get("created"))),
            ("started", output.when(row.get("started"))),
            ("finished", output.when(row.get("finished"))),
            ("parameters", ", ".join(f"{name}={value}" for name, value in run.parameters.items())),
            ("now", progress.describe_waits(row.get("waiting") or [])),
            ("to do", (row.get("waiting") or [{}])[0].get("todo")),
        )
    )
    steps = run.steps()
    if not timing:
        last = next((step for step in reversed(steps) if step.metrics), None)
        if last:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in last.metrics.items())
            output.say(f"model {last.model}: {shown} (mean over {len(last.sites)} hospitals)")
        return
    output.say()
    parts = sorted({part for step in steps for part in step.seconds}, key=_order)
    output.table(
        ("round", "kind", *parts, "all", "uploaded", "sites", "waited for", "missing"),
        (
            (
                step.round,
                step.kind,
                *(f"{step.seconds.get(part, 0):.2f}" for part in parts),
                f"{step.total_seconds:.2f}",
                output.size(step.bytes),
                len(step.sites),
                step.slowest,
                step.missing,
            )
            for step in steps
        ),
        none="No round is over yet.",
    )
    sites = sorted({site for step in steps for site in step.site_seconds})
    names = sorted({part for step in steps for took in step.site_seconds.values() for part in took}, key=_order)
    if not sites:
        return
    output.say("\nSeconds at each site, mean over the rounds: until its answer came in each phase, and its own steps")
    told = {site: [step.site_seconds[site] for step in steps if site in step.site_seconds] for site in sites}
    output.table(
        ("site", *names),
        ((site, *(_mean([took[name] for took in told[site] if name in took]) for name in names)) for site in sites),
        none="",
    )


def _order(part: str) -> tuple[int, str]:
    """Parts as they follow each other; what a later version adds comes last."""
    return (_PARTS.index(part) if part in _PARTS else len(_PARTS), part)


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else ""
