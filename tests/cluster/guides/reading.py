"""The commands of the guides: fenced blocks marked `sh` run as they stand, with the variables that a guide names.

Those marked `console` are about the software of others, which these tests cannot fetch, and are only looked at.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs" / "kubernetes"
_FENCE = re.compile(r"^```(\w*)$", re.MULTILINE)


def blocks(guide: str, mark: str = "sh") -> list[str]:
    """The guide's blocks with this mark, in their order."""
    block = re.compile(rf"^```{mark}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return block.findall((DOCS / guide).read_text(encoding="utf-8"))


def fences(guide: str) -> set[str]:
    """What the guide's blocks are marked with."""
    return set(_FENCE.findall((DOCS / guide).read_text(encoding="utf-8"))[::2])


def run(block: str, variables: Mapping[str, str], folder: Path, seconds: float = 400) -> str:
    """What a block prints. Raises AssertionError with all it printed if any of its commands fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout
