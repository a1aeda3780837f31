"""What the hub holds after a run: sealed artifacts, and what happens to who would read one."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from koinon.artifacts import keyfiles, sealing
from koinon.cli import output
from koinon.client import results
from koinon.client.local import Local
from koinon.client.runs import Run
from koinon.domain import errors


@dataclass(frozen=True)
class Holdings:
    """`refusal` is what a stranger's key got; `first_bytes` begin the sealed body in hex."""

    artifacts: list[dict[str, Any]]
    refusal: str
    first_bytes: str
    recipients: int


def look(console: Console, federation: Local, run: Run) -> Holdings:
    """Lists the run's artifacts and tries to read the newest without a recipient's key."""
    artifacts = run.artifacts()
    console.print("\n[bold]What the hub holds of this run[/]  [dim]sealed, named by the hash of their bytes[/]")
    for row in artifacts if len(artifacts) <= 6 else [*artifacts[:2], None, *artifacts[-3:]]:
        if row is None:
            console.print(f"  [dim]… {len(artifacts) - 5} more[/]")
        else:
            console.print(
                f"  {row['name'][:24]}…  {output.size(row['bytes']):>8}  {row['kind']:<9} round {row['round']}"
            )
    chosen = artifacts[-1]
    refusal, first_bytes, recipients = _try(federation, run, chosen)
    console.print(f"  Reading {chosen['name'][:12]}… without a recipient's key: [red]{refusal}[/]")
    console.print(f"  [dim]Its first bytes: {first_bytes[:48]}…[/]")
    return Holdings(artifacts, refusal, first_bytes, recipients)


def _try(federation: Local, run: Run, row: dict[str, Any]) -> tuple[str, str, int]:
    """The refusal, the body's first bytes in hex, and how many recipients there are."""
    stranger = keyfiles.new_identity()
    signer = federation.about()["signing"]
    with tempfile.TemporaryDirectory(dir=federation.folder) as scratch:
        sealed, opened = Path(scratch, "sealed"), Path(scratch, "opened")
        results.fetch(run, str(row["name"]), sealed)
        with sealed.open("rb") as stream:
            header = sealing.read_header(stream, signer=signer)
            first_bytes = stream.read(48).hex()
        expected = sealing.Expected(
            manifest=header.manifest,
            run=header.run,
            round=header.round,
            kind=header.kind,
            parent=header.parent,
            plaintext=header.plaintext,
            length=header.length,
        )
        try:
            sealing.open_file(sealed, stranger, opened, signer=signer, expected=expected)
        except errors.Untrusted as error:
            return error.what, first_bytes, len(header.stanzas)
    raise errors.Failed("An artifact was opened without a recipient's key.", where=f"artifact {row['name'][:12]}")
