"""What `koinon demo` tells, in order: a federation comes up, trains, is compared, and shows what the hub holds."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from koinon.cli import doctor, watching
from koinon.cli.demo import figures, holdings
from koinon.client import manifests
from koinon.client.local import Local, local
from koinon.client.progress import Step
from koinon.client.runs import Run
from koinon.data import heart
from koinon.domain import errors
from koinon.domain.manifest import STRATEGIES

# Learning rates at the sites and at the hub, as the field tuned them for this data (FLamby, arXiv 2210.04620).
RATES = {
    "fedavg": ("0.001", "1"),
    "fedprox": ("0.001", "1"),
    "scaffold": ("0.001", "1"),
    "fedadam": ("0.01", "0.01"),
    "fedyogi": ("0.003162", "0.01"),
    "fedadagrad": ("0.003162", "0.316228"),
}
_DEADLINES = {"train": 300, "phase": 40}
# A hospital without power is missed before the phase it fails in is over: its last poll of 25 s, and then this.
_AWAY_AFTER = 5.0


@dataclass(frozen=True)
class Settings:
    strategy: str
    rounds: int
    seed: int
    sites_down: int
    out: Path
    keep: bool


def tell(settings: Settings, *, quiet: bool = False) -> dict[str, Any]:
    """The whole demonstration; its report, which is also in `settings.out` as report.json and report.html."""
    if settings.strategy not in STRATEGIES:
        raise errors.Invalid(
            f'There is no strategy "{settings.strategy}".',
            where="--strategy",
            todo=f"There are {', '.join(STRATEGIES)}.",
        )
    console = Console(highlight=False, soft_wrap=True, quiet=quiet)
    out = settings.out.absolute()
    folder = out / "federation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    try:
        from koinon.cli.demo import page  # it imports matplotlib, which looks for that folder and writes into it

        with _baseline(settings.seed) as baseline:
            walls = _introduce(console)
            with _federation(console, settings, folder) as federation:
                story = _train(console, settings, federation, baseline)
                held = holdings.look(console, federation, story.run)
                report = figures.report(story.steps, story.baseline, held, story.sha256)
                about = page.About(settings.strategy, settings.seed, walls, story.downed, story.parameters)
        page.write(out / "report.html", report, about, held)
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    finally:
        if not settings.keep:
            shutil.rmtree(folder, ignore_errors=True)
    _close(console, settings.out)
    return report


@dataclass(frozen=True)
class _Story:
    run: Run
    steps: list[Step]
    baseline: dict[str, Any]
    sha256: str
    downed: tuple[str, ...]
    parameters: dict[str, Any]


def _federation(console: Console, settings: Settings, folder: Path) -> Local:
    away_after = _AWAY_AFTER if settings.sites_down else 75.0
    return local(folder=folder, away_after=away_after, say=lambda line: console.print(f"[dim]{line}[/]"))


def _introduce(console: Console) -> list[doctor.Finding]:
    console.print("[bold]Koinon[/] trains one model at four hospitals; no record leaves one, no update can be read.")
    console.print(f"[dim]{heart.CREDIT}[/]\n")
    walls = list(doctor.walls())
    missing = [finding for finding in walls if finding.state != "good"]
    if missing:
        console.print("[bold black on yellow] This machine does not offer every wall around research code: [/]")
        for finding in missing:
            console.print(f"  [yellow]{finding.line()}[/]")
        console.print("  [yellow]On Kubernetes the charts build them; here, run only code you trust.[/]\n")
    else:
        console.print(
            "[black on green] Walls [/] research code here has no network, sees no key and no other process.\n"
        )
    return walls


def _train(console: Console, settings: Settings, federation: Local, baseline: "subprocess.Popen[str]") -> _Story:
    project = federation.create_project(
        "heart", purpose="Predict heart disease from 13 features.", deadlines=_DEADLINES
    )
    console.print(f"[dim]project    {project.hash}[/]")
    compared = _read(baseline)  # before the first round: it would take the cores from the hospitals
    local_rate, server_rate = RATES[settings.strategy]
    run = project.submit(
        rounds=settings.rounds, strategy=settings.strategy, seed=settings.seed,
        learning_rate=local_rate, server_learning_rate=server_rate,
    )  # fmt: skip
    console.print(
        f"\n[bold]Run {run.id}[/]: {settings.rounds} rounds of {settings.strategy}, seed {settings.seed}, "
        "secure aggregation on. A round's accuracy is that of the model it starts from."
    )
    console.print("[dim]First each hospital starts its own Ray and builds the first weights (up to a minute).[/]")
    downed = tuple(list(federation.data)[::-1][: settings.sites_down])
    steps: list[Step] = []
    with _power_cut(console, federation, run, downed), watching.Live(console, run, title="heart") as live:
        for step in run.watch(60 * settings.rounds + 600, waits=live.waits):
            live.advance(step)
            steps.append(step)
    result = run.download(settings.out / "model.safetensors")
    sha256 = figures.sha256(result)
    _compare(console, figures.federated(steps), compared)
    if downed:
        console.print(
            f"  [dim]The federated figure is over the test rows of the {len(steps[-1].sites)} hospitals left.[/]"
        )
    return _Story(run, steps, compared, sha256, downed, run.parameters)


@contextlib.contextmanager
def _power_cut(console: Console, federation: Local, run: Run, sites: tuple[str, ...]) -> Iterator[None]:
    """Kills `sites` in the first round, after they sent their keys: the moment that costs the protocol most."""
    stop = threading.Event()

    def wait_and_kill() -> None:
        after = 0
        while not stop.is_set():
            with contextlib.suppress(errors.Unavailable):
                for event in federation.connection.events(f"{run.path}/events", after, silence=5):
                    after = max(after, int(event.get("seq", 0)))
                    data = event.get("data") or {}
                    if stop.is_set():
                        return
                    if event.get("kind") == "attempt.advanced" and data.get("phase") == "shares":
                        for site in sites:
                            federation.stop_site(site, kill=True)
                            console.print(f"[bold yellow]          {site} loses power now, its keys sent.[/]")
                        return

    thread = threading.Thread(target=wait_and_kill, name="koinon-power-cut", daemon=True)
    if sites:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if sites:
            thread.join(timeout=10)


def _compare(console: Console, federated: float, compared: dict[str, Any]) -> None:
    """Each hospital alone, federated, pooled: on the test rows of all hospitals."""
    console.print(f"\n[bold]{'':24}{compared['metric']}[/]  [dim]mean over the hospitals' test rows[/]")
    for site, value in compared["alone"].items():
        console.print(f"  {site + ' alone':22}{value:.4f}  {_bar(value)}")
    console.print(f"  [bold]{'federated':22}{federated:.4f}  [green]{_bar(federated)}[/][/]")
    console.print(f"  {'all data in one place':22}{compared['pooled']:.4f}  {_bar(compared['pooled'])}")


def _bar(value: float) -> str:
    return "█" * round(40 * max(0.0, min(1.0, value)))


@contextlib.contextmanager
def _baseline(seed: int) -> "Iterator[subprocess.Popen[str]]":
    """The comparison, computed while the federation comes up."""
    contract = manifests.read_contract(heart.CONTRACT)
    request = {
        "contract": contract.model_dump(mode="json"),
        "datasets": {site: str(path) for site, path in heart.HOSPITALS.items()},
        "seeds": [seed],
    }
    command = [sys.executable, "-m", "koinon.trainer.baseline"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as found:
        assert found.stdin is not None
        found.stdin.write(json.dumps(request))
        found.stdin.close()
        found.stdin = None  # communicate() must not close it again
        try:
            yield found
        finally:
            if found.poll() is None:
                found.kill()


def _read(baseline: "subprocess.Popen[str]") -> dict[str, Any]:
    text, complaint = baseline.communicate()
    if baseline.returncode:
        raise errors.Failed(
            f"The baseline failed: {complaint.strip().splitlines()[-1:]}", where="koinon.trainer.baseline"
        )
    return dict(json.loads(text))


def _close(console: Console, out: Path) -> None:
    console.print(f"\n[bold]Report[/]     {out / 'report.html'} and {out / 'report.json'}")
    console.print("[dim]Every process has ended; hub and hospitals are gone.[/]\n")
    console.print("[bold]Next[/]:")
    console.print("  koinon up           keeps hub and hospitals running to play with")
    console.print("  koinon init risk    writes a model of your own, with a test that runs as it is")
