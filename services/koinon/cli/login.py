"""`koinon login`: which hub, and as whom."""

from pathlib import Path
from typing import Annotated

import typer

from koinon.cli import output, secrets


def add_to(app: typer.Typer) -> None:
    app.command("login")(login)


def login(
    address: Annotated[str, typer.Argument(help="The hub, for example https://hub.example.org")],
    token_file: Annotated[
        Path | None, typer.Option(help='File with the token that the operator gave you; "-" is standard input.')
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            envvar="KOINON_CA",
            show_envvar=True,
            help="PEM of the authority of the hub's certificate.",
        ),
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="The fingerprint the operator read out; without it you are shown the hub's.")
    ] = None,
    json: output.Json = False,
) -> None:
    """Keep a hub and your token for it, readable by you alone.

    The token comes from a file, standard input, KOINON_TOKEN or a hidden prompt, never from an argument.

    \b
    Examples
      koinon login https://hub.example.org
      koinon login https://hub.example.org --token-file token.txt --fingerprint 1a2b-…
      koinon login https://hub.example.org --ca hospital-ca.crt
    """
    from koinon.client import http, settings
    from koinon.client import hub as hubs
    from koinon.domain import errors

    token = secrets.read(token_file, environment="KOINON_TOKEN", prompt="Token")
    with hubs.Hub(http.Connection(address, token, ca=ca)) as hub:
        about = hub.about()
        if fingerprint is not None and fingerprint != about["fingerprint"]:
            raise errors.Untrusted(
                f"The hub shows the fingerprint {about['fingerprint']}, not {fingerprint}.",
                where=address,
                todo="Call the operator before you go on: this may be another machine.",
            )
        projects = hub.projects()  # the token is tried before it is kept
    kept = str(ca.absolute()) if ca is not None else ""
    path = settings.save_login(
        settings.Login(hub=http.check_url(address), token=token, signing=about["signing"], ca=kept)
    )
    if json:
        output.emit({"hub": address, "fingerprint": about["fingerprint"], "file": str(path), "projects": len(projects)})
        return
    output.say(f"Logged in to {address} (kept in {path}).")
    output.say(f"Its fingerprint: {about['fingerprint']}")
    if fingerprint is None:
        output.say("Compare it with what the operator reads out to you.")
    output.say("Next: koinon key new, then koinon init NAME")
