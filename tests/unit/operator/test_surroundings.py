"""What surrounds it: names, settings, quantities, probes."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from koinon.domain.errors import Invalid
from koinon_operator import health, lookup, quantity, settings


def test_names_are_looked_up_apart_and_kept_while_they_do_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(lookup, "_resolve", lambda host: answers.get(host, ()))
    found, changes = lookup.Lookup(), []
    assert found.addresses("hub.example") == ()
    assert found.wanted.is_set()
    answers["hub.example"] = ("203.0.113.7",)
    found.refresh(lambda: changes.append(1))
    assert found.addresses("hub.example") == ("203.0.113.7",)
    answers.clear()
    found.refresh(lambda: changes.append(2))
    assert found.addresses("hub.example") == ("203.0.113.7",)
    assert changes == [1]
    assert not found.wanted.is_set()


def test_what_can_be_no_name_has_no_address() -> None:
    assert lookup._resolve("a" * 64 + ".example.org") == ()


def test_name_servers_of_a_pod(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("search lyon.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\nnameserver fd00::a\n")
    assert lookup.name_servers(path) == ["10.96.0.10", "fd00::a"]
    assert lookup.name_servers(tmp_path / "none") == []


def test_settings_name_one_hospital_or_several() -> None:
    one = settings.read(
        {"KOINON_NAMESPACE": "lyon", "KOINON_WORK_NAMESPACE": "lyon-work", "KOINON_RESYNC_SECONDS": "7"}
    )
    assert one.hospitals == {"lyon": "lyon-work"}
    assert one.resync_seconds == 7
    several = settings.read({"KOINON_HOSPITALS": "lyon:lyon-work, nice:nice-work"})
    assert several.homes == {"lyon-work": "lyon", "nice-work": "nice"}


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({}, "KOINON_NAMESPACE"),
        ({"KOINON_HOSPITALS": "lyon"}, "KOINON_HOSPITALS"),
        ({"KOINON_HOSPITALS": "lyon:lyon"}, "KOINON_HOSPITALS"),
        ({"KOINON_HOSPITALS": "lyon:work,nice:work"}, "KOINON_HOSPITALS"),
        ({"KOINON_HOSPITALS": "a:b", "KOINON_RESYNC_SECONDS": "soon"}, "KOINON_RESYNC_SECONDS"),
    ],
)
def test_settings_that_are_wrong_name_their_variable(environment: dict[str, str], where: str) -> None:
    with pytest.raises(Invalid) as caught:
        settings.read(environment)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", 1, True),
        ("1000m", "1", True),
        ("1Gi", str(2**30), True),
        ("1G", 10**9, True),
        ("1e3", "1k", True),
        ("0.5", "500m", True),
        ("1", "2", False),
        ("one", "1", False),
        (None, "0", False),
        ("inf", "inf", False),
        ("1e2000000000", "1e2000000000", False),
    ],
)
def test_quantities(one: object, other: object, same: bool) -> None:
    assert quantity.equal(one, other) is same


def test_probes_say_whether_it_lives() -> None:
    answers = {"live": True, "ready": False}
    server = health.serve(
        0,
        live=lambda: (answers["live"], {"seconds": 1}),
        ready=lambda: (answers["ready"], {}),
        metrics=lambda: b"a_metric 1\n",
    )
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert _status(f"{url}/healthz") == 200
        assert _status(f"{url}/readyz") == 503
        assert _status(f"{url}/metrics") == 200
        assert _status(f"{url}/other") == 404
        answers["live"] = False
        assert _status(f"{url}/healthz") == 503
    finally:
        server.shutdown()
        server.server_close()


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
