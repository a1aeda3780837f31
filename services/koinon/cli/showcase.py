"""`koinon demo` and `koinon up`: four hospitals on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from koinon.cli import output

Strategy = Annotated[str, typer.Option(help="fedavg, fedprox, scaffold, fedadam, fedyogi or fedadagrad.")]


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)
    app.command("up")(up)


def demo(
    strategy: Strategy = "fedavg",
    rounds: Annotated[int, typer.Option(min=1, max=1000)] = 15,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    sites_down: Annotated[int, typer.Option(min=0, max=1, help="Hospitals that lose power in the first round.")] = 0,
    out: Annotated[Path, typer.Option(help="Where report.html and report.json go.")] = Path("build/demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the hub's and the hospitals' folders in OUT.")] = False,
    json: output.Json = False,
) -> None:
    """Train on real data at four hospitals on this machine, protected.

    The UCI heart data; it shows what came of it and ends by itself.

    A hub with real HTTP, four hospitals with their own keys and Ray, 15 rounds; then the table, what the hub holds, and
    a report. Everything stays on this machine, below OUT.

    \b
    Examples
      koinon demo
      koinon demo --strategy fedyogi --sites-down 1 --rounds 5 --seed 43
    """
    import signal

    from koinon.cli.demo import story

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends in order, as Ctrl-C does
    settings = story.Settings(strategy, rounds, seed, sites_down, out, keep)
    report = story.tell(settings, quiet=json)
    if json:
        output.emit(report)


def up(
    dir: Annotated[Path, typer.Option(help="Where keys, database and logs go; they are there the next time.")] = Path(
        "build/up"
    ),
    sites: Annotated[int, typer.Option(min=3, max=4, help="How many hospitals of the heart example.")] = 4,
) -> None:
    """Keep a hub and four hospitals running here, to play with.

    It prints how to talk to them through HTTP, CLI and SDK. Ctrl-C ends all.

    \b
    Examples
      koinon up
      koinon up --dir /tmp/federation --sites 3
    """
    from koinon.cli.demo import playground

    playground.run(dir, sites)
