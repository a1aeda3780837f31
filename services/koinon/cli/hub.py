"""`koinon hub`: run one, let sites in, keep copies."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from koinon.cli import output, secrets
from koinon.cli.user import Database, Folder

if TYPE_CHECKING:
    from koinon.gateway.tls import Files
    from koinon.store.store import Store

app = typer.Typer(help="The hub, for its operator.", no_args_is_help=True)


@app.command("serve")
def serve(
    dir: Folder = Path("hub"),
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than this machine need TLS, here or in front of it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one and writes the address to DIR/address.")] = 8470,
    database: Database = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            envvar="KOINON_ARTIFACTS", show_envvar=True, help="Where sealed artifacts go: file:///… or s3://…."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(envvar="KOINON_TLS_CERT", show_envvar=True, help="Certificate and its chain (PEM): serve HTTPS."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="KOINON_TLS_KEY", show_envvar=True, help="The certificate's key (PEM).")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(envvar="KOINON_URL", show_envvar=True, help="How others reach this hub, if through a proxy."),
    ] = None,
    away_after: Annotated[
        float, typer.Option(min=1, help="Seconds without a poll, then rounds go on without a site.")
    ] = 75.0,
) -> None:
    """Run the hub in DIR until Ctrl-C. One process per folder; a second one says so and leaves.

    Keys of an S3 store come from KOINON_S3_ACCESS_KEY and KOINON_S3_SECRET_KEY. A renewed certificate is taken up
    without a restart. Behind a proxy that serves the hub below a path, --url says which.

    \b
    Examples
      koinon hub serve --dir /srv/hub
      koinon hub serve --dir /srv/hub --host 0.0.0.0 --tls-cert hub.crt --tls-key hub.key
      koinon hub serve --dir /srv/hub --database postgresql://hub@db/koinon --artifacts s3://s3.example.org/koinon
    """
    from koinon.gateway import serve as gateway
    from koinon.scheduler.look import Pace

    gateway.serve(
        dir, host, port, database, artifacts, pace=Pace(live=away_after), encrypted=_pair(tls_cert, tls_key), url=url
    )


def _pair(certificate: Path | None, key: Path | None) -> "Files | None":
    from koinon.domain import errors
    from koinon.gateway.tls import Files

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        missing = "--tls-cert" if certificate is None else "--tls-key"
        raise errors.Invalid("HTTPS needs a certificate and its key.", where="koinon hub serve", todo=f"Add {missing}.")
    return Files(certificate, key)


@app.command("invite")
def invite(
    sites: Annotated[list[str], typer.Argument(metavar="SITE...", help="Names of the hospitals, like lyon.")],
    dir: Folder = Path("hub"),
    database: Database = None,
    days: Annotated[float, typer.Option(min=0.01, max=90, help="How long the invitation holds.")] = 7,
    out: Annotated[
        Path | None, typer.Option(help="Write each token to OUT/SITE.token (0600) instead of printing it.")
    ] = None,
    json: output.Json = False,
) -> None:
    """Let hospitals enrol: one token each, for one use. The hub keeps only their hashes.

    Send a token by another way than the hub's address, and compare fingerprints by telephone.

    \b
    Examples
      koinon hub invite lyon
      koinon hub invite lyon nice lille --out invitations
    """
    from secrets import token_urlsafe

    from koinon.domain import ids
    from koinon.store import accounts

    for site in sites:
        ids.require_name(site, where="site")
    expires = time.time() + days * 86_400
    tokens = {site: token_urlsafe(32) for site in sites}
    with store(dir, database) as found:
        for site, token in tokens.items():
            found.add_enrolment(accounts.hash_token(token), site, expires)
    files = {site: out / f"{site}.token" if out else None for site in sites}
    if json:
        rows = [
            {"site": s, "expires": expires, **({"file": str(secrets.keep(t, f))} if (f := files[s]) else {"token": t})}
            for s, t in tokens.items()
        ]
        output.emit(rows)
        return
    for site, token in tokens.items():
        secrets.hand_over(token, files[site], what=f"Invitation of {site}, until {output.when(expires)}")


@app.command("backup")
def backup(
    out: Annotated[Path, typer.Argument(help="A new file.")],
    dir: Folder = Path("hub"),
    database: Database = None,
    json: output.Json = False,
) -> None:
    """Copy the hub's database while it runs. Keys and artifacts are plain files: copy DIR/keys and the store too.

    PostgreSQL has pg_dump for this.

    \b
    Example
      koinon hub backup hub-monday.sqlite --dir /srv/hub
    """
    from koinon.store import backup as copies

    copies.backup(url(dir, database), out.absolute())
    output.done(
        json, f"{out} ({output.size(out.stat().st_size)}). Keep DIR/keys with it, apart and safe.", file=str(out)
    )


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(help="A file that `koinon hub backup` wrote.")],
    dir: Folder = Path("hub"),
    database: Database = None,
    json: output.Json = False,
) -> None:
    """Put a copy in the place of the hub's database.

    The copy and every chain of events in it are checked before. Stop the hub first: it holds the folder.

    \b
    Example
      koinon hub restore hub-monday.sqlite --dir /srv/hub
    """
    from koinon.store import backup as copies
    from koinon.store.lock import HubLock

    dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with HubLock(dir):
        copies.restore(url(dir, database), source.absolute())
    output.done(json, f"Restored from {source}. Start it: koinon hub serve --dir {dir}", file=str(source))


def url(folder: Path, database: str | None) -> str:
    return database or f"sqlite:///{folder.absolute() / 'hub.sqlite'}"


@contextlib.contextmanager
def store(folder: Path, database: str | None) -> "Iterator[Store]":
    """The hub's store, to be used beside a running hub: without its fence, so only for verbs that need none."""
    from koinon.store.store import Store

    if database is None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = Store(url(folder, database))
    try:
        found.migrate()
        yield found
    finally:
        found.close()
