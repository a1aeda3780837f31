"""Commands of the CLI in processes of their own: what only the hub's folder or a hospital's root key can do."""

import json
import subprocess
import sys
from typing import Any

from koinon.domain import errors

KOINON = [sys.executable, "-m", "koinon.cli"]


def run(*words: str) -> Any:
    """What the command prints as JSON. Raises what it says, as the error it was there."""
    done = subprocess.run([*KOINON, *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout)
    lines = done.stderr.strip().splitlines() or ["It said nothing."]
    try:
        told = json.loads(lines[-1])["error"]
    except (ValueError, KeyError, TypeError):
        raise errors.Failed(lines[-1][:500], where=f"koinon {' '.join(words[:2])}") from None
    raise errors.by_slug(told["code"])(told["what"], where=told["where"], todo=told["todo"])
