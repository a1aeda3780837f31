"""A real Prometheus scrapes a real hub while runs train and wait: every panel and every alert of it has its series."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from charts.monitoring import files
from charts.monitoring.queries import of_dashboard, of_rules
from koinon.domain.manifest import Manifest
from koinon.domain.run import Kind
from tests.cluster.monitoring import prometheus
from tests.cluster.monitoring.prometheus import SCRAPE_SECONDS, Prometheus
from tests.services import hubs
from tests.services.consortium import Federation
from tests.services.hubs import wait_for

SEEN_SECONDS = 900
_OWN_TLS = "koinon_certificate_expiry"  # this hub serves plain HTTP; the federation on the cluster has the series
_MISSING = 'koinon_wait_since_timestamp_seconds{cause="not_granted"}'


@dataclass(frozen=True)
class Watched:
    """A federation after a run that finished, with one that waits for `nice`, and one for grants."""

    federation: Federation
    prometheus: Prometheus
    waits: str
    begun: float


def submit_ungranted(federation: Federation) -> None:
    manifest = Manifest.of(federation.manifest.model_dump() | {"name": "second"})
    assert federation.client.post("/v1/projects", content=manifest.encode()).status_code == 201
    body = {"project": "second", "parameters": {"rounds": 1}}
    assert federation.client.post("/v1/runs", json=body).status_code == 201


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with (
        hubs.running(folder / "hub") as hub,
        Federation(hub, deadlines={"train": 600, "phase": 60}) as federation,
        prometheus.running(
            folder / "prometheus", {"koinon-hub": [f"127.0.0.1:{hub.port}"]}, [files.HUB_RULES]
        ) as found,
    ):
        wait_for(lambda: found.query("koinon_info"), 60, "the first scrape")  # what rose before is no increase
        federation.start()
        federation.complete(federation.submit(rounds=3))
        nice = federation.sites["nice"]
        nice.before = lambda task: task.opening.kind is not Kind.TRAIN
        begun = time.time()
        run = federation.submit(rounds=1)
        submit_ungranted(federation)
        assert federation.client.get("/v1/nothing").status_code == 404
        query = f'koinon_wait_since_timestamp_seconds{{run="{run}", site="nice", cause="train"}}'
        wait_for(lambda: found.query(query), 60, "a wait for nice")
        wait_for(lambda: found.query(_MISSING), 60, "a missing grant")
        time.sleep(5 * SCRAPE_SECONDS)  # rates need some points
        yield Watched(federation, found, run, begun)
        nice.before = lambda task: True


def test_prometheus_scrapes_the_hub(watched: Watched) -> None:
    assert watched.prometheus.unhealthy() == {}
    assert [one["value"][1] for one in watched.prometheus.query('up{job="koinon-hub"}')] == ["1"]


def test_every_panel_of_the_federation_dashboard_has_series(watched: Watched) -> None:
    asked = of_dashboard(files.FEDERATION.read_text())
    assert len(asked) > 25
    assert watched.prometheus.unknown(asked) == set()
    assert watched.prometheus.silent(asked, SEEN_SECONDS) == []


def test_every_alert_of_the_hub_reads_series_that_are_there(watched: Watched) -> None:
    """Without its threshold: an alert that is quiet must be so for its value, not for the lack of one."""
    rules = [rule for rule in of_rules(files.HUB_RULES.read_text()) if _OWN_TLS not in rule.expr]
    assert watched.prometheus.unknown(rules) == set()
    bare = [side for rule in rules for side in rule.sides()]
    assert len(bare) >= len(rules)
    assert watched.prometheus.silent(bare, SEEN_SECONDS) == []


def test_no_alert_fires_in_a_federation_that_is_well(watched: Watched) -> None:
    groups = watched.prometheus.get("rules")["groups"]
    rules = list(itertools.chain.from_iterable(group["rules"] for group in groups))
    assert len(rules) == len(of_rules(files.HUB_RULES.read_text()))
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_the_first_row_answers_which_run_waits_for_whom_since_when(watched: Watched) -> None:
    asked = [one for one in of_dashboard(files.FEDERATION.read_text()) if one.where.startswith("Which runs wait")]
    assert len(asked) == 3
    answers = [watched.prometheus.query(one.expr) for one in asked]
    assert len(answers[0]) == len(answers[1]) == len(answers[2]) == 1 + len(watched.federation.sites)
    [[waiting], [shown], [until]] = [[o for o in told if o["metric"]["run"] == watched.waits] for told in answers]
    assert shown["metric"] == {"run": watched.waits, "project": "heart", "site": "nice", "cause": "train"}
    assert watched.begun <= float(shown["value"][1]) / 1_000 <= time.time()
    [told] = watched.federation.run(watched.waits)["waiting"]
    assert told["for"] == "nice"
    assert float(shown["value"][1]) == pytest.approx(1_000 * told["since"], abs=1)
    assert float(until["value"][1]) == pytest.approx(1_000 * told["until"], abs=1)
    assert waiting["metric"] == until["metric"] == shown["metric"]
