"""`koinon up`: a federation left running, and how to talk to it."""

import signal
import threading
from pathlib import Path

from koinon.cli import doctor, output
from koinon.client import settings
from koinon.client.local import Local, local
from koinon.domain import keys


def run(folder: Path, sites: int) -> None:
    """Until Ctrl-C or SIGTERM."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    federation = local(sites, folder=folder, say=output.say)
    try:
        _walls()
        _how_to(federation, folder)
        while not over.wait(1.0):
            federation.processes.check()
        output.say("\nStopping the hub and all hospitals …")
    finally:
        federation.stop()
    output.say(f"Stopped. Everything is kept in {folder}; koinon up starts it again.")


def _walls() -> None:
    missing = [finding for finding in doctor.walls() if finding.state != "good"]
    for finding in missing:
        output.say(finding.line())
    if not missing:
        output.say("walls      research code has no network, sees no key and no other process")


def _how_to(federation: Local, folder: Path) -> None:
    """Leaves a login and a key beside the federation, and prints the next commands."""
    client = folder / "client"
    token = (folder / "researcher.token").read_text().strip()
    about = federation.about()
    path = client / "login.json"
    login = settings.Login(hub=federation.connection.url, token=token, signing=about["signing"])
    settings.save_login(login, path)
    key = client / "identity.age"
    key.unlink(missing_ok=True)
    key.symlink_to(federation.identity)
    data, contract = next(iter(federation.data.values())), "contract.yaml"
    url = federation.connection.url
    output.say(
        f"""
Ready to go. The hub's fingerprint: {keys.fingerprint(about["signing"])}

In another terminal, with the environment in which koinon is installed (. build/venv/bin/activate):
  export KOINON_CONFIG={client.absolute()}
  koinon project create heart --template --contract {data.parent / contract}
  for site in {" ".join(federation.data)}; do
    koinon grant heart --site {folder}/sites/$site --vouch-all --yes; done
  koinon run submit heart rounds=15 --watch

In Python, with the same variable:
  import koinon; hub = koinon.connect(); run = hub.project("heart").submit(rounds=5)

With HTTP:
  curl -H "Authorization: Bearer $(cat {folder}/researcher.token)" {url}/v1/sites
  {url}/openapi.json describes every address.

Ctrl-C stops everything."""
    )
