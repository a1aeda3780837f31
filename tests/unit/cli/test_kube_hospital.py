"""What `kubectl koinon` sees of a hospital whose API server is a table of objects."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from koinon.cli.kube import gather, hospital, status
from koinon.cli.kube.kubectl import Kubectl
from koinon.domain.errors import KoinonError, NotFound
from tests.unit.cli.test_kube_doctor import healthy

SITE = healthy().hospital.object
PLAN = {"data": {"site.json": json.dumps(SITE)}}
AWAY = "https://hub.example: The hub does not answer (ConnectTimeout)."
BOUND = {"subjects": [{"kind": "ServiceAccount", "namespace": "ray", "name": "operator"}]}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The objects that the API server has, by kind; `raw` is what the agent answers, `run` what kubectl prints."""
    found: dict[str, Any] = {}

    def listed(_self: Kubectl, kind: str, **_where: Any) -> Sequence[dict[str, Any]]:
        return [found[kind]] if kind in found else []

    def one(_self: Kubectl, kind: str, name: str, **_where: Any) -> dict[str, Any]:
        if kind not in found:
            raise NotFound(f'{kind} "{name}" not found')
        wanted: dict[str, Any] = found[kind]
        return wanted

    def run(_self: Kubectl, *arguments: str, **_given: Any) -> str:
        answer = found.get(arguments[0], "")
        if isinstance(answer, KoinonError):
            raise answer
        return str(answer)

    monkeypatch.setattr(Kubectl, "list", listed)
    monkeypatch.setattr(Kubectl, "get", one)
    monkeypatch.setattr(Kubectl, "run", run)
    monkeypatch.setattr(Kubectl, "raw", lambda _self, _path: json.dumps(found["raw"]))
    return found


def test_a_declared_site_is_taken_as_it_is(there: dict[str, Any]) -> None:
    there["sites.koinon.dev"] = SITE | {"status": {"fingerprint": "…"}}
    found = hospital.find("lyon", None)
    assert (found.declared, found.object["status"]) == (True, {"fingerprint": "…"})


def test_until_it_is_declared_the_charts_plan_stands_for_it(there: dict[str, Any]) -> None:
    there["configmap"] = PLAN
    found = hospital.find("lyon", None)
    assert (found.declared, found.site, found.work) == (False, "lyon", "lyon-work")


def test_where_nothing_was_installed_the_namespace_is_asked_for(there: dict[str, Any]) -> None:
    with pytest.raises(NotFound, match="Name the hospital's namespace"):
        hospital.find("lyon", None)


def test_status_of_an_undeclared_site_says_why_the_hub_is_away(
    there: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    there |= {"configmap": PLAN, "raw": {"version": "0.1.0", "connected": False, "trouble": AWAY}}
    there["pods"] = {"metadata": {"name": "koinon-agent-0"}}
    picture = gather.look(hospital.find("lyon", None))
    status.show(picture)
    said = capsys.readouterr().out
    assert "not declared yet: kubectl koinon doctor" in said
    assert AWAY in said
    assert status.document(picture)["declared"] is False


@pytest.mark.parametrize(
    ("answer", "intruder"), [("true", "ray:operator"), ("false", ""), (KoinonError("forbidden"), "")]
)
def test_kuberays_account_is_asked_about(there: dict[str, Any], answer: Any, intruder: str) -> None:
    there |= {"configmap": PLAN, "rolebinding": BOUND, "create": answer}
    assert gather.look(hospital.find("lyon", None)).intruder == intruder
