"""The report's plots as SVG text: no script, no font and no picture from elsewhere."""

import io
import re
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

INK, GRID, FEDERATED, POOLED, ALONE = "#1d2b3a", "#e4e9ef", "#0b7a75", "#33415c", "#9aa5b1"
PART_COLOURS = {
    "local steps": "#0b7a75",
    "dispatch": "#7fc8a9",
    "keys": "#f2c14e",
    "shares": "#f5a45d",
    "masked": "#e4704a",
    "survivors": "#b5577a",
    "unmask": "#7b5ea7",
    "commit": "#4a6fa5",
    "between rounds": "#c3ccd6",
}
_STYLE: Any = {
    "font.size": 11,
    "font.family": "sans-serif",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "svg.fonttype": "path",
    "svg.hashsalt": "koinon",  # the same report gives the same bytes
    "figure.constrained_layout.use": True,
}


def learning(report: dict[str, Any]) -> str:
    """The metric after each round, between the hospitals alone and all data in one place."""
    metric, values = report["metric"], [row["metric"] for row in report["rounds"]]
    numbers = list(range(1, len(values) + 1))
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(8.2, 4.1))
        references = [(f"{site} alone", value, ALONE) for site, value in metric["alone"].items()]
        references.append(("all data pooled", metric["pooled"], POOLED))
        for _, value, colour in references:
            axes.axhline(value, color=colour, linewidth=1.2, linestyle=(0, (5, 3)) if colour == POOLED else (0, (1, 2)))
        everything = [*values, *(value for _, value, _ in references)]
        low, high = min(everything) - 0.02, max(everything) + 0.03
        heights = spread([value for _, value, _ in references], 0.052 * (high - low))
        for (name, _, colour), height in zip(references, heights, strict=True):
            axes.annotate(
                name,
                (1.0, height),
                xycoords=("axes fraction", "data"),
                xytext=(7, -3),
                textcoords="offset points",
                fontsize=9,
                color=POOLED if colour == POOLED else "#6b7683",
                annotation_clip=False,
            )
        axes.plot(numbers, values, color=FEDERATED, linewidth=2.4, marker="o", markersize=4.5, clip_on=False, zorder=3)
        axes.fill_between(
            numbers, values, min([*values, *metric["alone"].values()]) - 0.02, color=FEDERATED, alpha=0.07
        )
        axes.annotate(f"federated {values[-1]:.3f}", (numbers[-1], values[-1]), xytext=(-4, 9), ha="right",
                      textcoords="offset points", color=FEDERATED, weight="bold")  # fmt: skip
        axes.set(xlabel="round", ylabel=metric["name"], xlim=(1, max(2, len(values))), ylim=(low, high))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, "learning")


def spread(values: list[float], gap: float) -> list[float]:
    """Where to write labels for `values` so that each is `gap` from the next: moved up as little as needed."""
    places = dict.fromkeys(range(len(values)), 0.0)
    last = float("-inf")
    for index in sorted(places, key=lambda i: values[i]):
        last = places[index] = max(values[index], last + gap)
    return list(places.values())


def time_spent(report: dict[str, Any]) -> str:
    """Where each round's time goes, part on part."""
    rows = report["rounds"]
    names = [name for name in PART_COLOURS if any(row["seconds"].get(name) for row in rows)]
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(8.2, 3.7))
        numbers, below = list(range(1, len(rows) + 1)), [0.0] * len(rows)
        for name in names:
            heights = [1000 * row["seconds"].get(name, 0.0) for row in rows]
            axes.bar(numbers, heights, bottom=below, width=0.72, label=name, color=PART_COLOURS[name], linewidth=0)
            below = [a + b for a, b in zip(below, heights, strict=True)]
        axes.set(xlabel="round", ylabel="milliseconds", xlim=(0.4, len(rows) + 0.6))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
        return _svg(figure, "time")


def uploaded(report: dict[str, Any]) -> str:
    """Masked bytes that all hospitals uploaded in each round."""
    rows = report["rounds"]
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(8.2, 2.3))
        numbers = list(range(1, len(rows) + 1))
        axes.bar(numbers, [row["bytes"] / 1000 for row in rows], width=0.72, color="#4a6fa5", linewidth=0)
        axes.set(xlabel="round", ylabel="kB", xlim=(0.4, len(rows) + 0.6))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        return _svg(figure, "bytes")


def _svg(figure: Any, name: str) -> str:
    """The figure as an element to be put into a page; ids are its own, since a page holds several."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for pattern in (r'id="([^"]+)"', r'xlink:href="#([^"]+)"', r"url\(#([^)]+)\)"):
        text = re.sub(pattern, lambda found: found.group(0).replace(found.group(1), f"{name}-{found.group(1)}"), text)
    text = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", text, count=1)
    return re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", text, count=1)
