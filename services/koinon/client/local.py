"""`koinon.local(sites=4)`: a hub and hospitals on this machine, the same code and protocol as anywhere.

Each hospital is a process of its own, with its own folder, keys and local Ray. All of it lives in one folder, and ends
with the `with` block, with Ctrl-C, or with whoever started it, whatever becomes first.
"""

import atexit
import fcntl
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

from koinon.client import commands, keyfile
from koinon.client.http import Connection
from koinon.client.hub import Hub
from koinon.client.processes import Processes, short_environment, wait_for_file
from koinon.client.projects import Project
from koinon.data import heart
from koinon.domain import errors

READY_SECONDS = 120.0
_DEADLINES = {"train": 600, "phase": 60}  # everything is on one machine


def local(
    sites: int | Mapping[str, str | Path] = 4,
    *,
    folder: str | Path | None = None,
    dataset: str = "heart",
    away_after: float = 75.0,
    say: Callable[[str], None] | None = None,
) -> "Local":
    """Starts a federation and returns its hub when all hospitals answer.

    `sites`: how many of the four hospitals of the shipped heart example (at least 3), or name → CSV file of one's own.
    `folder` keeps keys, database and logs; without it a temporary one is removed at the end. `away_after` seconds after
    its last poll a hospital is no longer invited to rounds.
    Raises Invalid, Conflict (the folder is in use), Waiting or Failed with the log's last line.
    """
    place = Path(folder).absolute() if folder else None
    federation = Local(_chosen(sites), place, dataset, say or _to_stderr, away_after)
    try:
        federation.start()
    except BaseException:
        federation.stop()
        raise
    return federation


class Local(Hub):
    """The hub of a local federation, with what only someone at the machine can do: grant, stop and start sites."""

    def __init__(
        self, data: Mapping[str, Path], folder: Path | None, dataset: str, say: Callable[[str], None], away_after: float
    ) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="koinon-"))
        self._temporary = folder is None
        self.data = dict(data)
        self.dataset = dataset
        self.say = say
        self.away_after = away_after
        self._stopped = False
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.processes = Processes()
        atexit.register(self.stop)

    def start(self) -> None:
        """Hub, user, key, then every hospital: enrolled, started, seen."""
        address = self.folder / "hub" / "address"
        _require_unused(self.folder)
        address.unlink(missing_ok=True)
        began = time.monotonic()
        hub = ["hub", "serve", "--dir", str(self.folder / "hub"), "--port", "0", "--away-after", str(self.away_after)]
        self.processes.start("hub", [*commands.KOINON, *hub], self.folder / "log" / "hub.log", short_environment())
        url = wait_for_file(address, self.processes, READY_SECONDS)
        self.say(f"hub        ready at {url} after {time.monotonic() - began:.1f} s")
        super().__init__(Connection(url, self._token()), identity=self._identity())
        self._enrol(url)
        for site in self.data:
            self.start_site(site)
        self._wait_until_seen(began)

    def site_folder(self, site: str) -> Path:
        return self.folder / "sites" / site

    def start_site(self, site: str) -> None:
        """Starts a hospital's agent, for the first time or again."""
        log = self.folder / "log" / f"{site}.log"
        self.processes.start(
            site, [*commands.KOINON, "site", "serve", str(self.site_folder(site))], log, short_environment()
        )

    def stop_site(self, site: str, *, kill: bool = False) -> None:
        """Ends a hospital's agent and its Ray: asked, or (`kill`) as a power cut would."""
        self.processes.signal(site, SIGKILL if kill else SIGTERM)
        if self.processes.wait(site, 30) is None:
            self.processes.signal(site, SIGKILL)

    def create_project(self, name: str, **options: Any) -> Project:
        """As Hub.create_project, granted at once by every hospital; contract and data are the heart example's
        unless named. `grant=False` leaves the grants to you."""
        grant = options.pop("grant", True)
        options.setdefault("contract", heart.CONTRACT)
        options.setdefault("deadlines", _DEADLINES)
        project = super().create_project(name, **options)
        if grant:
            self.grant(project)
            project.wait_for_grants(READY_SECONDS, say=self.say)
        return project

    def grant(self, project: Project, sites: Iterable[str] | None = None, *, days: int = 90) -> None:
        """What `koinon grant` does at each hospital. All of them vouch for each other: one person holds every key."""

        def one(site: str) -> None:
            commands.run(
                "grant", project.hash, "--site", str(self.site_folder(site)), "--dataset", self.dataset,
                "--days", str(days), "--vouch-all", "--yes",
            )  # fmt: skip

        _in_parallel(one, sites if sites is not None else project.sites)

    def revoke(self, project: Project, site: str) -> None:
        """What `koinon revoke` does at one hospital; returns when the hub knows. Raises Waiting."""
        commands.run("revoke", project.hash, "--site", str(self.site_folder(site)), "--yes")
        until = time.monotonic() + READY_SECONDS
        while project.grants()[site]["state"] != "revoked":
            if time.monotonic() > until:
                raise errors.Waiting(f"{site} did not tell the hub of its revocation.", where=f"project {project.name}")
            time.sleep(0.1)  # the hub tells no researcher

    def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends every process and gives the temporary folder back. May be called again."""
        if self._stopped:
            return
        self._stopped = True
        atexit.unregister(self.stop)
        if hasattr(self, "connection"):
            self.connection.close()
        self.processes.close()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _token(self) -> str:
        file = self.folder / "researcher.token"
        if not file.exists():
            commands.run("user", "add", "researcher", "--dir", str(self.folder / "hub"), "--out", str(file))
        return file.read_text().strip()

    def _identity(self) -> Path:
        file = self.folder / "identity.age"
        if not file.exists():
            keyfile.create(file)
        return file

    def _enrol(self, url: str) -> None:
        """Invites and enrols the hospitals that are new here; the others learn the hub's present address."""
        new = [site for site in self.data if not (self.site_folder(site) / "site.yaml").exists()]
        invitations = self.folder / "invitations"
        if new:
            for site in new:
                (invitations / f"{site}.token").unlink(missing_ok=True)
            commands.run("hub", "invite", *new, "--dir", str(self.folder / "hub"), "--out", str(invitations))

        def one(site: str) -> None:
            words = ["site", "init", str(self.site_folder(site)), "--hub", url]
            if site in new:
                words += ["--name", site, "--data", f"{self.dataset}={self.data[site]}"]
                words += ["--token-file", str(invitations / f"{site}.token")]
            commands.run(*words)

        _in_parallel(one, self.data)
        shutil.rmtree(invitations, ignore_errors=True)

    def _wait_until_seen(self, began: float) -> None:
        seen: set[str] = set()
        while len(seen) < len(self.data):
            self.processes.check()
            for row in self.sites():
                if row["name"] in self.data and row["name"] not in seen and row.get("last_seen"):
                    seen.add(row["name"])
                    self.say(f"hospital   {row['name']} is here ({len(seen)} of {len(self.data)})")
            if time.monotonic() - began > READY_SECONDS:
                missing = ", ".join(sorted(set(self.data) - seen))
                raise errors.Waiting(
                    f"{missing} did not answer within {READY_SECONDS:.0f} s.",
                    where="local federation",
                    todo=f"Their logs are in {self.folder / 'log'}",
                )
            time.sleep(0.1)  # the hub tells no researcher when a site comes


def _chosen(sites: int | Mapping[str, str | Path]) -> dict[str, Path]:
    if isinstance(sites, Mapping):
        chosen = {name: Path(path).absolute() for name, path in sites.items()}
        for name, path in chosen.items():
            if not path.is_file():
                raise errors.NotFound("There is no such file.", where=f"sites[{name}]: {path}")
    else:
        chosen = dict(list(heart.HOSPITALS.items())[: max(0, sites)])
        if sites > len(heart.HOSPITALS):
            raise errors.Invalid(
                f"The example has {len(heart.HOSPITALS)} hospitals.",
                where="sites",
                todo='Name files: {"lyon": "lyon.csv"}',
            )
    if len(chosen) < 3:
        raise errors.Invalid("A federation has at least 3 sites: fewer hide nobody.", where="sites")
    return chosen


def _require_unused(folder: Path) -> None:
    """Raises Conflict, before anything is changed, if a hub runs in the folder."""
    try:
        with (folder / "hub" / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return
    except BlockingIOError:
        raise errors.Conflict(
            "A federation is already running here.", where=str(folder), todo="Use it, stop it, or name another folder."
        ) from None


def _in_parallel(work: Callable[[str], None], sites: Iterable[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, sites))


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
