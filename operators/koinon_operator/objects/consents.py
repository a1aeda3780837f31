"""The hospital's signed grants and revocations, as the agent reads them from a mounted ConfigMap."""

from collections.abc import Iterable, Mapping

from koinon.domain.errors import Invalid
from koinon.domain.grant import Grant, Revocation
from koinon_operator.kinds import CONFIG_MAP, Object
from koinon_operator.names import CONSENTS, labels

_REVOCATIONS = "revocations."


def config_map(home: str, grants: Iterable[Grant], revocations: Iterable[Revocation], *, owner: Object) -> Object:
    """`grants.<hash>.json` and `revocations.<hash>.json` in canonical JSON; of a project the newest revocation."""
    data = {f"grants.{grant.manifest}.json": grant.encode().decode() for grant in grants}
    for revocation in sorted(revocations, key=lambda found: found.time):
        data[f"{_REVOCATIONS}{revocation.manifest}.json"] = revocation.encode().decode()
    made = CONFIG_MAP.make(home, CONSENTS, {"data": dict(sorted(data.items()))} if data else {}, labels=labels())
    made["metadata"]["ownerReferences"] = [owner]
    return made


def kept_revocations(found: Object | None) -> list[Revocation]:
    """What was revoked before, so that a deleted Grant that is applied again stays revoked. Signatures unchecked."""
    data: Mapping[str, str] = (found or {}).get("data") or {}
    kept = []
    for name, text in sorted(data.items()):
        if name.startswith(_REVOCATIONS):
            try:
                kept.append(Revocation.parse(text))
            except Invalid:
                continue  # an edit by hand; it is written anew from what is known
    return kept
