"""`koinon site`: a hospital's own side, and how the hub sees it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from koinon.cli import output, secrets

app = typer.Typer(help="A hospital's site, for its IT; and what a hub knows of one.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The site's folder.")]
Settings = Annotated[
    Path | None,
    typer.Option(envvar="KOINON_SITE_SETTINGS", show_envvar=True, help="The site's site.yaml, if not in its folder."),
]


@app.command("init")
def init(
    folder: Folder,
    name: Annotated[str | None, typer.Option(help="The site's name, as the hub's operator invited it.")] = None,
    hub: Annotated[str | None, typer.Option(help="The hub's address.")] = None,
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=FILE", help="A data set; repeat it.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help='File with the invitation; "-" is standard input. Or set KOINON_INVITATION.')
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="New keys of the agent, certified by the root key.")] = False,
    json: output.Json = False,
) -> None:
    """Make a site's folder with its keys and enrol it.

    In a folder that has keys it changes hub or data sets.
    Compare both fingerprints by telephone. Then take DIR/root/root.key offline: only grants and renewals need it.

    \b
    Examples
      koinon site init lyon --name lyon --hub http://127.0.0.1:8470 --data heart=lyon.csv --token-file invitation
      koinon site init lyon --data stroke=stroke.csv
      koinon site init lyon --renew
    """
    import time

    from koinon.agent import setup

    if renew:
        certificate = setup.renew(folder, now=time.time())
        output.done(
            json,
            f"Keys of epoch {certificate.epoch} until {output.when(certificate.not_after)}.",
            epoch=certificate.epoch,
        )
        return
    datasets = _datasets(data or [])
    if (folder / "agent" / "certificate.json").exists() and token_file is None:
        _change(folder, hub, datasets, json=json)
        return
    token = secrets.read(token_file, environment="KOINON_INVITATION", prompt="Invitation")
    chosen, address = _required(name, "--name"), _required(hub, "--hub")
    enrolled = setup.enrol(folder, name=chosen, hub_url=address, token=token, datasets=datasets, now=time.time())
    if json:
        output.emit({"site": enrolled.site, "fingerprint": enrolled.fingerprint, "hub": enrolled.hub_fingerprint})
        return
    output.say(f"{enrolled.site} is enrolled at {address}.")
    output.fields(
        (("this site's fingerprint", enrolled.fingerprint), ("the hub's fingerprint", enrolled.hub_fingerprint))
    )
    output.say("Compare both with the hub's operator by telephone, and read yours out to the other hospitals.")
    output.say(f"Then keep {folder / 'root' / 'root.key'} offline. Next: koinon site serve {folder}")


@app.command("keys")
def keys(
    folder: Folder,
    name: Annotated[str | None, typer.Option(help="The site's name, as the hub's operator invited it.")] = None,
    renew: Annotated[bool, typer.Option("--renew", help="New keys of the agent, certified by the root key.")] = False,
    json: output.Json = False,
) -> None:
    """Make the keys of a site whose agent runs in Kubernetes. Offline, on a machine of the hospital's IT.

    The root key in DIR/root stays there: grants, revocations and renewals need it. What is in DIR/agent goes into a
    Secret; the agent enrols itself with the hub's invitation.

    \b
    Examples
      koinon site keys lyon --name lyon
      koinon site keys lyon --renew
    """
    import shlex
    import time

    from koinon.agent import setup
    from koinon.agent.config import Folder as Paths
    from koinon.domain.keys import fingerprint

    if renew:
        made = setup.renew_keys(folder, now=time.time())
    else:
        made = setup.make_keys(folder, name=_required(name, "--name"), now=time.time())
    paths = Paths(folder)
    root = paths.root_public.read_text().strip()
    files = shlex.quote(str(paths.agent))
    command = f"kubectl create secret generic koinon-agent --namespace {made.site} --from-file={files}"
    if renew:
        command += " --dry-run=client --output yaml | kubectl apply --filename -"
    if json:
        output.emit({"site": made.site, "root": root, "fingerprint": fingerprint(root), "epoch": made.epoch,
                     "expires": made.not_after, "root_key": str(paths.root_key), "command": command})  # fmt: skip
        return
    output.fields(
        (
            ("site", made.site),
            ("fingerprint", fingerprint(root)),
            ("root, for the Site", root),
            ("agent's keys", f"epoch {made.epoch}, until {output.when(made.not_after)}"),
        )
    )
    output.say(f"Keep {paths.root_key} offline, and a copy of it in a safe. Read the fingerprint out to the others.")
    output.say("The agent's keys, without the root key, into its Secret (and restart the agent if it runs):")
    output.say(command)


@app.command("serve")
def serve(folder: Folder, settings: Settings = None) -> None:
    """Run the site's agent until Ctrl-C.

    It asks the hub for work and does what was granted, nothing else.

    \b
    Example
      koinon site serve lyon
    """
    from koinon.agent import serve as agent

    agent.serve(folder, settings)


@app.command("show")
def show(
    name: Annotated[str | None, typer.Argument(help="One site; without it all are listed.")] = None,
    json: output.Json = False,
) -> None:
    """How the hub sees its sites.

    Last contact, clock, free disk, version, and what each is doing.

    \b
    Examples
      koinon site show
      koinon site show lyon
    """
    from koinon.client import hub as hubs

    with hubs.connect() as hub:
        if name is None:
            found = hub.sites()
            if json:
                output.emit(found)
            else:
                output.table(
                    ("site", "last seen", "doing", "fingerprint"),
                    (
                        (s["name"], output.ago(s.get("last_seen")), _status(s).get("doing"), s["fingerprint"])
                        for s in found
                    ),
                    none="No site is enrolled: koinon hub invite NAME",
                )
            return
        one = hub.site(name)
    if json:
        output.emit(one)
        return
    status = _status(one)
    offset = one.get("clock_offset")
    output.fields(
        (
            ("site", one["name"]),
            ("fingerprint", one["fingerprint"]),
            ("last seen", output.ago(one.get("last_seen"))),
            ("doing", status.get("doing")),
            ("clock", f"{offset:+.1f} s against the hub's" if offset is not None else None),
            ("free disk", output.size(status["disk_free"]) if status.get("disk_free") else None),
            ("version", status.get("version")),
        )
    )


@app.command("doctor")
def doctor(folder: Folder, settings: Settings = None, json: output.Json = False) -> None:
    """Examine a site and say what to repair.

    Keys, data, clock, whether the hub answers, and which walls this machine can build. Ends with 1 if something must
    be repaired.

    \b
    Example
      koinon site doctor lyon
    """
    from koinon.cli import doctor as examinations

    findings = examinations.examine(folder, settings)
    if json:
        output.emit([finding.as_json() for finding in findings])
    else:
        for finding in findings:
            output.say(finding.line())
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


def _datasets(pairs: list[str]) -> dict[str, str]:
    from koinon.domain import errors

    found = {}
    for pair in pairs:
        name, separator, path = pair.partition("=")
        if not separator:
            raise errors.Invalid(f'"{pair}" is not NAME=FILE.', where="--data", todo="Like heart=heart.csv")
        if not Path(path).is_file():
            raise errors.NotFound("There is no such file.", where=f"--data {pair}")
        found[name] = str(Path(path).absolute())
    return found


def _change(folder: Path, hub: str | None, datasets: dict[str, str], *, json: bool) -> None:
    from koinon.agent import config

    known = config.read(folder)
    if hub is not None:
        config.require_loopback(hub)
    changes = {"hub": hub or known.hub, "datasets": {**known.datasets, **datasets}}
    changed = config.Settings.of({**known.model_dump(), **changes}, where="site.yaml")
    config.write(folder, changed)
    output.done(
        json, f"{known.name}: hub {changed.hub}, data sets {', '.join(changed.datasets) or 'none'}.", site=known.name
    )


def _required(value: str | None, option: str) -> str:
    from koinon.domain import errors

    if not value:
        raise errors.Invalid(
            f"A new site needs {option}.", where="koinon site init", todo="See koinon site init --help"
        )
    return value


def _status(row: dict[str, Any]) -> dict[str, Any]:
    return dict(row.get("status") or {})
