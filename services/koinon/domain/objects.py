"""A hospital's consent as a custom resource: the signed grant with Kubernetes' spelling of its fields, and back.

The object carries the very fields that the root signed, so that whoever holds it can check the signature; `document`
is the manifest that it grants, for people and machines that have not seen it yet.
"""

from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel, to_snake

from koinon.domain import canonical
from koinon.domain.grant import Grant, Revocation
from koinon.domain.manifest import Manifest

GROUP, VERSION = "koinon.dev", "v1alpha1"
API = f"{GROUP}/{VERSION}"
NAMED = ("vouched",)  # maps whose keys are names, not fields


def grant_name(manifest: Manifest) -> str:
    """The object's name: readable, and one per manifest."""
    return f"{manifest.name}-{manifest.digest()[:8]}"


def grant_object(grant: Grant, manifest: Manifest, namespace: str) -> dict[str, Any]:
    """The Grant to apply in `namespace`, the agent's."""
    return {
        "apiVersion": API,
        "kind": "Grant",
        "metadata": {"name": grant_name(manifest), "namespace": namespace},
        "spec": {**_camel(grant.model_dump()), "document": manifest.encode().decode()},
    }


def grant_of(spec: Mapping[str, Any]) -> Grant:
    """The signed grant of a Grant's `spec`; its signature is not checked here. Raises Invalid that names the field."""
    fields = {key: value for key, value in spec.items() if key not in ("document", "revocation")}
    return Grant.of(_snake(fields), where="spec")


def revocation_of(spec: Mapping[str, Any]) -> Revocation | None:
    """The signed revocation of a Grant's `spec`, None if there is none. Raises Invalid that names the field."""
    told = spec.get("revocation")
    if told is None:
        return None
    return Revocation.of({**told, "manifest": spec["manifest"], "site": spec["site"]}, where="spec.revocation")


def revocation_patch(revocation: Revocation) -> str:
    """A merge patch (RFC 7386) that revokes a Grant."""
    told = {"time": revocation.time, "signature": revocation.signature}
    return canonical.encode({"spec": {"revocation": told}}).decode()


def _camel(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {to_camel(key): dict(item) if key in NAMED else _camel(item) for key, item in value.items()}


def _snake(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {to_snake(key): dict(item) if key in NAMED else _snake(item) for key, item in value.items()}
