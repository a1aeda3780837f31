"""How secrets come in and go out: files of mode 0600, standard input or the environment, never an argument."""

import os
import sys
from pathlib import Path

from koinon.domain import errors


def read(file: Path | None, *, environment: str, prompt: str) -> str:
    """A secret from `file` ("-" is standard input), the variable `environment`, or a hidden prompt at a terminal."""
    if file is not None and str(file) != "-":
        return _one_line(file.read_text(), str(file))
    if file is None and (value := os.environ.get(environment)):
        return _one_line(value, environment)
    if file is None and sys.stdin.isatty():
        import typer

        return _one_line(str(typer.prompt(prompt, hide_input=True)), prompt)
    return _one_line(sys.stdin.readline(), "standard input")


def _one_line(text: str, where: str) -> str:
    secret = text.strip()
    if not secret or any(c.isspace() for c in secret):
        raise errors.Invalid("There must be exactly one word.", where=where)
    return secret


def hand_over(secret: str, file: Path | None, *, what: str) -> None:
    """Write `secret` to `file` (0600), or print it this once."""
    from koinon.cli import output

    if file is None:
        output.note(f"{what}. It is shown this once and stored only as its hash:")
        output.say(secret)
    else:
        keep(secret, file)
        output.note(f"{what}: written to {file}, readable by you alone.")


def keep(secret: str, file: Path) -> Path:
    """Write `secret` to `file` (0600). Raises Conflict if there is one."""
    from koinon.artifacts import keyfiles

    keyfiles.write_secret(file, secret + "\n")
    return file
