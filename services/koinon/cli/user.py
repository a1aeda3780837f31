"""`koinon user`: who may submit to a hub."""

import time
from pathlib import Path
from typing import Annotated

import typer

from koinon.cli import output, secrets

app = typer.Typer(help="Researchers of a hub, for its operator.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--dir", help="The hub's folder.")]
Database = Annotated[
    str | None,
    typer.Option(envvar="KOINON_DATABASE", show_envvar=True, help="The hub's database, if not in its folder."),
]


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="A name of a-z, 0-9 and -.")],
    dir: Folder = Path("hub"),
    database: Database = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the token to this file (0600) instead of printing it.")
    ] = None,
    json: output.Json = False,
) -> None:
    """Admit a researcher. The token is shown once; the hub keeps its hash alone.

    \b
    Examples
      koinon user add ana --dir /srv/hub
      koinon user add ana --dir /srv/hub --out ana.token
    """
    from secrets import token_urlsafe

    from koinon.cli import hub
    from koinon.domain import ids
    from koinon.store import accounts

    ids.require_name(name, where="name")
    token = token_urlsafe(32)
    with hub.store(dir, database) as store:
        store.add_user(name, accounts.hash_token(token))
    if json:
        output.emit({"user": name, **({"file": str(secrets.keep(token, out))} if out else {"token": token})})
    else:
        secrets.hand_over(token, out, what=f"Token of {name}")


@app.command("list")
def list_(dir: Folder = Path("hub"), database: Database = None, json: output.Json = False) -> None:
    """The researchers of a hub.

    \b
    Example
      koinon user list --dir /srv/hub
    """
    from koinon.cli import hub

    with hub.store(dir, database) as store:
        found = store.users()
    if json:
        output.emit([{"name": user.name, "created": user.created} for user in found])
    else:
        output.table(
            ("user", "since"),
            ((u.name, output.when(u.created)) for u in found),
            none="No user yet: koinon user add NAME",
        )


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument()],
    dir: Folder = Path("hub"),
    database: Database = None,
    json: output.Json = False,
) -> None:
    """Take a researcher's token back, at once. Projects and runs stay.

    \b
    Example
      koinon user remove ana --dir /srv/hub
    """
    from koinon.cli import hub

    with hub.store(dir, database) as store:
        store.remove_user(name)
    if json:
        output.emit({"user": name, "removed": time.time()})
    else:
        output.say(f"{name} is removed; the token works no more.")
