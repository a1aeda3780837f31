"""What commands print: JSON for programs, a table or a sentence for people."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


def emit(value: Any) -> None:
    """`value` as JSON on standard output."""
    print(json.dumps(value, indent=2, default=str))


def say(text: str = "") -> None:
    print(text)


def done(json: bool, text: str, **values: object) -> None:
    """What was done: `values` for programs, or a sentence."""
    if json:
        emit(values)
    else:
        say(text)


def note(text: str) -> None:
    """To standard error: what goes on, beside a result that a program may read."""
    print(text, file=sys.stderr)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], *, none: str) -> None:
    """Columns aligned by their widest cell: numbers to the right, text to the left. `none` if there is no row."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        say(none)
        return
    widths = [max(len(head), *(len(row[i]) for row in cells)) for i, head in enumerate(heads)]
    right = [all(_numeric(row[i]) for row in cells) for i in range(len(heads))]
    for line in [list(heads), *cells]:
        padded = (
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, right, strict=True)
        )
        say("  ".join(padded).rstrip())


def fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """One `name  value` a line."""
    known = [(name, _cell(value)) for name, value in pairs if value not in (None, "", (), [])]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        say(f"{name.ljust(width)}  {value}")


def when(seconds: float | None) -> str:
    """A time as people at this machine write it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def ago(seconds: float | None, now: float | None = None) -> str:
    if not seconds:
        return "never"
    return f"{span((now or time.time()) - seconds)} ago"


def span(seconds: float) -> str:
    """12 s, 3 min, 5 h, 2 d."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def size(count: float) -> str:
    """512 B, 3.4 kB, 400 MB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def _numeric(text: str) -> bool:
    return not text or text.replace(".", "", 1).replace("-", "", 1).isdigit()
