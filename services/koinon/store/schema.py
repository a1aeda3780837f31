"""The tables. Documents (manifests, certificates, rosters) are JSON text: they are hashed and parsed whole."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(name: str, null: bool = False) -> Column[str]:
    return Column(name, Text, nullable=null)


def _time(name: str, null: bool = False) -> Column[float]:
    return Column(name, Double, nullable=null)


def _number(name: str, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _of_attempt() -> ForeignKeyConstraint:
    keys = ["run", "round", "attempt"]
    return ForeignKeyConstraint(keys, ["attempts.run", "attempts.round", "attempts.number"], ondelete="CASCADE")


def _of_round() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["run", "round"], ["rounds.run", "rounds.number"], ondelete="CASCADE")


fence = Table(
    "fence",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    _number("number"),
    _text("holder"),
    CheckConstraint("id = 1", name="single"),
)

meta = Table("meta", metadata, Column("key", Text, primary_key=True), _text("value"))

users = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    _text("token_hash"),
    _time("created"),
    UniqueConstraint("token_hash"),
)

enrolments = Table(
    "enrolments",
    metadata,
    Column("token_hash", Text, primary_key=True),
    _text("site"),
    _time("expires"),
    _text("root", null=True),  # set once used: the root key that it let in
)

sites = Table(
    "sites",
    metadata,
    Column("name", Text, primary_key=True),
    _text("root"),
    _text("certificate"),
    _number("epoch"),
    _time("enrolled"),
    _text("status", null=True),
    _time("last_seen", null=True),
    _time("clock_offset", null=True),
    UniqueConstraint("root"),
)

projects = Table(
    "projects",
    metadata,
    Column("hash", Text, primary_key=True),
    _text("name"),
    _text("manifest"),
    _text("owner"),
    _time("created"),
    _number("rounds"),
    _number("releases"),
    Index(None, "name"),
)

grants = Table(
    "grants",
    metadata,
    Column("manifest", Text, ForeignKey("projects.hash")),
    _text("site"),
    _text("grant", null=True),
    _text("revocation", null=True),
    PrimaryKeyConstraint("manifest", "site"),
)

packages = Table("packages", metadata, Column("sha256", Text, primary_key=True), _number("size"), _time("created"))

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, ForeignKey("projects.hash"), nullable=False),
    _text("owner"),
    _text("key", null=True),
    _text("digest"),
    _text("parameters"),
    _text("state"),
    _time("created"),
    _time("started", null=True),
    _time("finished", null=True),
    _text("reason"),
    _text("model", null=True),
    _number("model_round", null=True),
    _text("optimiser", null=True),
    _number("version"),
    _text("result", null=True),
    UniqueConstraint("owner", "key"),
    Index(None, "project"),
    Index(None, "state"),
    Index(None, "created"),
)

# A chain is no child of its run: it stays when the run is deleted. `head` is kept apart from the events, so
# that cutting off the newest ones shows.
chains = Table(
    "chains", metadata, Column("run", Text, primary_key=True), _text("project"), _number("seq"), _text("head")
)

events = Table(
    "events",
    metadata,
    Column("run", Text, ForeignKey("chains.run")),
    _number("seq"),
    _number("time"),
    _text("kind"),
    _text("data"),
    _text("previous"),
    _text("hash"),
    PrimaryKeyConstraint("run", "seq"),
)

rounds = Table(
    "rounds",
    metadata,
    Column("run", Text, ForeignKey("runs.id", ondelete="CASCADE")),
    _number("number"),
    _text("kind"),
    _text("state"),
    _time("opened"),
    _time("closed", null=True),
    _text("first", null=True),
    Column("released", Boolean, nullable=False),
    _number("version"),
    _text("seconds"),
    _number("bytes"),
    _text("survivors"),
    _text("committed", null=True),  # hash of what commit_round was given
    PrimaryKeyConstraint("run", "number"),
)

attempts = Table(
    "attempts",
    metadata,
    _text("run"),
    _number("round"),
    _number("number"),
    _text("phase"),
    _time("deadline"),
    _text("opening"),
    _text("roster", null=True),
    _text("survivors", null=True),
    _text("phases"),
    _text("reason"),
    PrimaryKeyConstraint("run", "round", "number"),
    _of_round(),
)

messages = Table(
    "messages",
    metadata,
    _text("run"),
    _number("round"),
    _number("attempt"),
    _text("phase"),
    _text("site"),
    Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run", "round", "attempt", "phase", "site"),
    _of_attempt(),
)

troubles = Table(
    "troubles",
    metadata,
    _text("run"),
    _number("round"),
    _number("attempt"),
    _text("site"),
    _text("trouble"),
    PrimaryKeyConstraint("run", "round", "attempt", "site"),
    _of_attempt(),
)

parts = Table(
    "parts",
    metadata,
    _text("run"),
    _number("round"),
    _number("attempt"),
    _text("site"),
    _number("part"),
    _number("size"),
    PrimaryKeyConstraint("run", "round", "attempt", "site", "part"),
    _of_attempt(),
)

folds = Table(
    "folds",
    metadata,
    _text("run"),
    _number("round"),
    _number("attempt"),
    _text("name"),
    _text("digest"),
    _text("roots"),
    PrimaryKeyConstraint("run", "round", "attempt"),
    _of_attempt(),
)

sealings = Table(
    "sealings",
    metadata,
    _text("run"),
    _number("round"),
    _text("kind"),
    Column("header", LargeBinary, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run", "round", "kind"),
    _of_round(),
)

metrics = Table(
    "metrics",
    metadata,
    Column("run", Text, ForeignKey("runs.id", ondelete="CASCADE")),
    _number("version"),
    _text("scores"),
    PrimaryKeyConstraint("run", "version"),
)

artifacts = Table(
    "artifacts",
    metadata,
    _text("run"),
    _number("round"),
    _text("kind"),
    _text("ref"),
    PrimaryKeyConstraint("run", "round", "kind"),
    _of_round(),
)
