"""How a researcher's few words become a manifest: what is not said takes its default, and all of it is checked."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koinon.client import keyfile, packages
from koinon.domain import contract as contracts
from koinon.domain import errors, metrics
from koinon.domain.contract import Contract
from koinon.domain.layout import Model
from koinon.domain.manifest import Manifest, default_parameters

if TYPE_CHECKING:
    from koinon.client.hub import Hub

_TABULAR_ONLY = ("architecture", "hidden")


def build(
    hub: "Hub",
    name: str,
    *,
    contract: str | Path | Mapping[str, Any],
    code: str | Path | None = None,
    sites: Iterable[str] | None = None,
    purpose: str = "",
    metric_names: Sequence[str] | None = None,
    cohorts: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    protection: Mapping[str, Any] | None = None,
    deadlines: Mapping[str, Any] | None = None,
    recipients: Iterable[Mapping[str, str]] | None = None,
    follows: str | None = None,
) -> Manifest:
    """The manifest, its code package uploaded if it has one. Raises Invalid that names the field.

    `parameters` are choices that take the place of the template's (`koinon.domain.parameters`); `recipients` are
    `{"name", "recipient"}`, by default the key of `koinon key new`.
    """
    agreed = read_contract(contract)
    groups = dict(cohorts) if cohorts else {"all": []}
    choices = {key: choice.model_dump() for key, choice in default_parameters(dict.fromkeys(groups, ())).items()}
    model = Model(template="tabular")
    if code is not None:
        package = packages.pack(Path(code))
        layout = packages.layout(Path(code), agreed)
        hub_has_it(hub, package)
        model = Model(template="package", package=package.sha256, layout=layout)
        choices = {key: choice for key, choice in choices.items() if key not in _TABULAR_ONLY}
    about = hub.about()
    body: dict[str, Any] = {
        "name": name,
        "purpose": purpose or f"Research project {name}.",
        "created": int(time.time()),
        "hub": {"signing": about["signing"], "recipient": about["recipient"]},
        "members": members(hub, sites),
        "model": model.model_dump(),
        "contract": agreed.model_dump(),
        "cohorts": groups,
        "metrics": list(metric_names or metrics.default(agreed.target.task)),
        "parameters": {**choices, **(parameters or {})},
        "recipients": list(recipients or [keyfile.recipient(hub.identity)]),
        "predecessor": hub.project(follows).hash if follows else None,
    }
    for field, value in (("limits", limits), ("protection", protection), ("deadlines", deadlines)):
        if value:
            body[field] = dict(value)
    return Manifest.of(body, where="manifest")


def read_contract(contract: str | Path | Mapping[str, Any]) -> Contract:
    """A contract of a YAML file or of what such a file says. Raises Invalid that names file, line or field."""
    if isinstance(contract, Mapping):
        return Contract.of(dict(contract), where="contract")
    path = Path(contract)
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise errors.Invalid(
            "There is no such contract.", where=str(path), todo="koinon contract infer DATA.csv > contract.yaml"
        ) from None
    return contracts.from_yaml(text, where=path.name)


def members(hub: "Hub", sites: Iterable[str] | None) -> list[dict[str, str]]:
    """Site names and root keys, sorted by name. Raises NotFound for a site that did not enrol."""
    enrolled = {row["name"]: row["root"] for row in hub.sites()}
    chosen = sorted(set(sites)) if sites is not None else sorted(enrolled)
    for site in chosen:
        if site not in enrolled:
            listed = ", ".join(sorted(enrolled)) or "none yet"
            raise errors.NotFound(f"No site {site} is enrolled.", where="sites", todo=f"Enrolled are: {listed}.")
    return [{"site": site, "root": enrolled[site]} for site in chosen]


def hub_has_it(hub: "Hub", package: packages.Package) -> None:
    """Uploads the package unless the hub has it."""
    path = f"/v1/packages/{package.sha256}"
    if not hub.connection.exists(path):
        hub.connection.put(path, package.content)
