"""`kubectl koinon grant` and `revoke`: signed here with the root key, applied to the hospital's own API server."""

import time
from pathlib import Path
from typing import Annotated

import typer

from koinon.agent import consents
from koinon.artifacts import keyfiles
from koinon.cli import granting, output
from koinon.cli.kube import hospital
from koinon.cli.kube.hospital import Context, Hospital, Namespace
from koinon.domain import errors, objects
from koinon.domain.keys import SigningKey, fingerprint
from koinon.domain.manifest import Manifest

RootKey = Annotated[
    Path, typer.Option("--root-key", help="The hospital's root key, brought from where it is kept, for this command.")
]
_LOOK = 0.25  # seconds between two looks at what the operator has done


def grant(
    project: granting.Project,
    root_key: RootKey,
    namespace: Namespace = None,
    context: Context = None,
    dataset: granting.Dataset = None,
    days: granting.Days = 90,
    vouch: granting.Vouch = None,
    vouch_all: granting.VouchAll = False,
    min_sites: granting.MinSites = 3,
    min_others: granting.MinOthers = 2,
    cpus: granting.Cpus = 1,
    memory: granting.Memory = 4,
    disk: granting.Disk = 16,
    fit_seconds: granting.FitSeconds = 3_600,
    min_workers: granting.MinWorkers = 0,
    max_workers: granting.MaxWorkers = 0,
    gpus: granting.Gpus = 0,
    manifest: granting.ManifestFile = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the Grant to this file for GitOps instead of applying it.")
    ] = None,
    yes: granting.Yes = False,
    json: output.Json = False,
) -> None:
    """Say in plain words what a project would do here, then sign and apply a Grant.

    The operator builds the project's walls and its Ray cluster from it. It ends by itself, or with `revoke`; to renew
    it, grant again.

    \b
    Examples
      kubectl koinon grant heart -n lyon --root-key lyon/root/root.key --vouch nice --vouch lille
      kubectl koinon grant heart -n lyon --root-key root.key --vouch-all --out grants/heart.yaml
    """
    resources = granting.resources(cpus, memory, disk, fit_seconds, min_workers, max_workers, gpus)
    found = hospital.find(namespace, context)
    root = _root(root_key, found)
    chosen = _from_file(manifest, project) if manifest else found.manifest(project)
    name = granting.dataset(dataset, list(found.datasets), "koinon-site's value datasets")
    if name not in found.datasets:
        listed = ", ".join(found.datasets) or "none"
        raise errors.NotFound(f'There is no data set "{name}".', where="--dataset", todo=f"The Site has {listed}.")
    vouched = granting.vouched(chosen, found.site, vouch, vouch_all)
    granting.ask(
        chosen, found.site, dataset=name, days=days, vouched=vouched, resources=resources, min_sites=min_sites,
        min_others=min_others, yes=yes, json=json,
    )  # fmt: skip
    signed = consents.grant(
        chosen, root, found.site, dataset=name, vouched=vouched, days=days, now=time.time(), resources=resources,
        min_sites=min_sites, min_others=min_others,
    )  # fmt: skip
    wanted = objects.grant_object(signed, chosen, found.namespace)
    if out is not None:
        _write(out, wanted)
    else:
        found.kubectl.apply(wanted)
    shown = wanted["metadata"]["name"]
    if json:
        output.emit({"grant": shown, "site": signed.site, "manifest": signed.manifest, "expires": signed.expires})
        return
    output.say(f"{signed.site} {'signed' if out else 'granted'} {chosen.name} until {output.when(signed.expires)}.")
    follow = f"kubectl apply -f {out}" if out else f"kubectl koinon status -n {found.namespace}"
    output.say(f"Next: {follow}")


def revoke(
    project: granting.Project,
    root_key: RootKey,
    namespace: Namespace = None,
    context: Context = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until nothing of it is left.")] = 120,
    yes: granting.Yes = False,
    json: output.Json = False,
) -> None:
    """End a project here and now, and wait until the last of its pods is gone.

    \b
    Example
      kubectl koinon revoke heart -n lyon --root-key root.key
    """
    found = hospital.find(namespace, context)
    root, given = _root(root_key, found), found.grant(project)
    name, spec = given["metadata"]["name"], given["spec"]
    if not yes:
        typer.confirm(f"Revoke {name}?", abort=True, err=True)
    began = time.monotonic()
    ended, granted = objects.revocation_of(spec), objects.grant_of(spec)
    if ended is None or ended.time < granted.not_before:  # it was granted again since
        signed = consents.revocation(granted, root, now=time.time())
        found.kubectl.run("patch", "grants.koinon.dev", name, "--type=merge", "-p", objects.revocation_patch(signed))
    gone = _wait_until_gone(found, name, began, wait)
    if json:
        output.emit({"grant": name, "gone": gone, "seconds": round(time.monotonic() - began, 1)})
    else:
        output.say(f"{found.site} revoked {name}; the last of it was gone after {time.monotonic() - began:.1f} s.")


def _wait_until_gone(found: Hospital, name: str, began: float, seconds: float) -> bool:
    """True once the operator has seen that nothing is left. Raises Waiting that says what is."""
    while True:
        told = hospital.condition(found.kubectl.get("grants.koinon.dev", name), "Revoked")
        if told.get("status") == "True":
            return True
        if time.monotonic() - began >= seconds:
            raise errors.Waiting(
                f"After {seconds:.0f} s {name} is not gone: {told.get('message', 'the operator has not answered')}",
                where=f"namespace {found.namespace}",
                todo=f"It is revoked all the same. kubectl koinon doctor -n {found.namespace}",
            )
        time.sleep(_LOOK)


def _root(path: Path, found: Hospital) -> SigningKey:
    root = keyfiles.read_signing_key(path)
    if root.public != found.root:
        raise errors.Invalid(
            f"This is the key {fingerprint(root.public)}; the Site of {found.site} names {fingerprint(found.root)}.",
            where="--root-key",
            todo="Take the root key that `koinon site keys` made for this hospital.",
        )
    return root


def _from_file(path: Path, project: str) -> Manifest:
    found = Manifest.parse(path.read_bytes(), where=str(path))
    granting.check_name(found, project, str(path))
    return found


def _write(path: Path, document: dict[str, object]) -> None:
    import yaml

    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
