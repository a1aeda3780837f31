"""report.html: one file that needs nothing else, to be read, printed or put into a talk."""

import html
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from koinon import __version__
from koinon.cli import output
from koinon.cli.demo import plots
from koinon.cli.demo.holdings import Holdings
from koinon.cli.doctor import Finding
from koinon.data import heart

_TEMPLATE = Path(__file__).parent / "page.html"


@dataclass(frozen=True)
class About:
    """What the figures themselves do not say."""

    strategy: str
    seed: int
    walls: list[Finding]
    downed: tuple[str, ...]
    parameters: dict[str, Any]


def write(path: Path, report: dict[str, Any], about: About, held: Holdings) -> None:
    """Fills the template."""
    metric, rounds = report["metric"], report["rounds"]
    best_alone = max(metric["alone"].values())
    filled = Template(_TEMPLATE.read_text()).substitute(
        version=__version__,
        metric=metric["name"],
        federated=f"{metric['federated']:.3f}",
        pooled=f"{metric['pooled']:.3f}",
        alone=f"{min(metric['alone'].values()):.3f}–{best_alone:.3f}",
        overhead=f"{1000 * report['round_overhead_median_s']:.0f} ms",
        hospitals=len(metric["alone"]),
        rounds=len(rounds),
        strategy=about.strategy,
        seed=about.seed,
        parameters=html.escape(", ".join(f"{name} {value}" for name, value in about.parameters.items())),
        learning=plots.learning(report),
        time=plots.time_spent(report),
        uploaded=plots.uploaded(report),
        bytes_total=output.size(sum(row["bytes"] for row in rounds)),
        comparison=_comparison(report),
        downed=_downed(about.downed, rounds),
        artifacts=_artifacts(held),
        artifact_count=len(held.artifacts),
        refusal=html.escape(held.refusal),
        first_bytes=" ".join(held.first_bytes[i : i + 4] for i in range(0, 64, 4)),
        walls=_walls(about.walls),
        model=report["model_sha256"],
        credit=html.escape(heart.CREDIT),
    )
    path.write_text(filled, encoding="utf-8")


def _comparison(report: dict[str, Any]) -> str:
    metric = report["metric"]
    rows = [(f"{site} alone", value, "alone") for site, value in metric["alone"].items()]
    rows += [
        ("federated, protected", metric["federated"], "federated"),
        ("all data in one place", metric["pooled"], "pooled"),
    ]
    return "\n".join(
        f'<tr class="{kind}"><th>{html.escape(name)}</th><td class="number">{value:.4f}</td>'
        f'<td class="bar"><span style="width:{100 * value:.1f}%"></span></td></tr>'
        for name, value, kind in rows
    )


def _downed(sites: tuple[str, ...], rounds: list[dict[str, Any]]) -> str:
    if not sites:
        return ""
    left = len(rounds[-1]["survivors"])
    return (
        f'<p class="note">In round 1, {html.escape(", ".join(sites))} lost power after sending its keys. The masks '
        f"it left in the sum were removed with the shares of the others; the run went on with {left} hospitals.</p>"
    )


def _artifacts(held: Holdings) -> str:
    return "\n".join(
        f"<tr><td><code>{row['name'][:32]}…</code></td><td>{html.escape(str(row['kind']))}</td>"
        f'<td class="number">{row["round"]}</td><td class="number">{output.size(row["bytes"])}</td></tr>'
        for row in held.artifacts
    )


def _walls(findings: list[Finding]) -> str:
    items = []
    for finding in findings:
        name, kind = html.escape(finding.what.removeprefix("wall ")), "good" if finding.state == "good" else "missing"
        items.append(f'<li class="{kind}"><b>{name}</b> {html.escape(finding.said)}</li>')
    return "\n".join(items)
