"""The journal's tables, and what it keeps of a round beside the protocol's states."""

from dataclasses import dataclass
from typing import Any

from koinon.domain import canonical, wire

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (epoch INTEGER NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, project TEXT NOT NULL, parameters TEXT NOT NULL, state TEXT);
CREATE TABLE IF NOT EXISTS floors (run TEXT PRIMARY KEY, round INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (run TEXT, round INTEGER, attempt INTEGER, digest TEXT NOT NULL,
    PRIMARY KEY (run, round, attempt));
CREATE TABLE IF NOT EXISTS messages (run TEXT, round INTEGER, attempt INTEGER, phase TEXT, body BLOB NOT NULL,
    PRIMARY KEY (run, round, attempt, phase));
CREATE TABLE IF NOT EXISTS updates (run TEXT, round INTEGER, basis TEXT NOT NULL, files TEXT NOT NULL,
    report TEXT NOT NULL, PRIMARY KEY (run, round));
CREATE TABLE IF NOT EXISTS counts (project TEXT, run TEXT, round INTEGER, kind TEXT,
    PRIMARY KEY (project, run, round));
CREATE TABLE IF NOT EXISTS troubles (run TEXT PRIMARY KEY, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS controls (run TEXT PRIMARY KEY, file TEXT, pending INTEGER, pending_file TEXT);
"""


@dataclass(frozen=True)
class Update:
    """A plain update: file name → SHA-256, and the words that go beside it. `basis` is what it was made of."""

    basis: str
    files: dict[str, str]
    report: dict[str, Any]

    def digest(self) -> str:
        return canonical.digest({"basis": self.basis, "files": self.files, "report": self.report})


@dataclass(frozen=True)
class Control:
    """SCAFFOLD's c_i of a run at this site: `file` counts; `pending_file` will if round `pending` was committed."""

    file: str | None = None
    pending: int | None = None
    pending_file: str | None = None


Key = tuple[str, int, int]


def key_of(opening: wire.Opening) -> Key:
    return opening.run, opening.round, opening.attempt
