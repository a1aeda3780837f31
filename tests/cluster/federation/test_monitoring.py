"""A real Prometheus scrapes a real federation: every panel and every alert of both charts has its series.

What is scraped, and how, comes from the charts' own ServiceMonitors, PodMonitors and PrometheusRules.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import yaml

from charts.monitoring import files
from charts.monitoring.hub_alerts import ALERTS as HUB_ALERTS
from charts.monitoring.queries import Asked, of_dashboard, of_rules
from charts.monitoring.site_alerts import ALERTS as SITE_ALERTS
from koinon.client.projects import Project
from tests.cluster import kubectl, prometheus
from tests.cluster.conftest import Cluster
from tests.cluster.federation.conftest import OPTIONS
from tests.cluster.federation.league import CHARTS, SITES, League
from tests.cluster.monitoring.prometheus import Prometheus

pytestmark = pytest.mark.timeout(1_800)
SEEN_SECONDS = 1_800
# Each is true of a small test node, or is what the fixture does on purpose.
EXPECTED = {"KoinonQuotaFull", "KoinonDriftRepaired", "KoinonRayMemory", "KoinonHubDiskFull"}


@dataclass(frozen=True)
class Watched:
    """A federation after a run, with a project that a hospital granted and revoked, and a run that waits for it."""

    federation: League
    prometheus: Prometheus
    namespace: str

    def variables(self, site: str) -> dict[str, str]:
        return {"namespace": self.federation.home(site), "work": self.federation.work(site)}


@pytest.fixture(scope="module")
def watched(federation: League, project: Project) -> Iterator[Watched]:
    namespace = f"{federation.prefix}-monitoring"
    homes, works = [federation.home(site) for site in SITES], [federation.work(site) for site in SITES]
    with prometheus.deployed(namespace, [federation.hub_namespace, *homes, *works]) as found:
        offer(federation, namespace)
        prometheus.settle(found, {federation.hub_namespace: 1} | dict.fromkeys(homes, 2) | dict.fromkeys(works, 1))
        for _ in project.submit(rounds=3, seed=1_234).watch(600):
            pass
        second = granted_once(federation)
        revoke(federation, second.name, SITES[0])
        run = second.submit(rounds=1)
        query = f'koinon_wait_since_timestamp_seconds{{project="{second.name}"}}'
        kubectl.until(lambda: len(found.query(query)) == len(SITES), "a wait for grants", 120)
        busy = project.submit(rounds=50, seed=4_321, local_steps=20_000)
        training = 'koinon_wait_since_timestamp_seconds{cause="train"}'
        kubectl.until(lambda: found.query(training), "a wait for training", 120)
        busy.cancel()
        time.sleep(4 * prometheus.SCRAPE_SECONDS)  # rates need some points
        yield Watched(federation, found, namespace)
        run.cancel()


def offer(federation: League, namespace: str) -> None:
    """Turns on all that the charts have for monitoring, in releases that run."""
    mine = json.dumps(prometheus.labels(namespace))
    on = ["--reuse-values"]
    for part in ("serviceMonitor", "prometheusRule", "dashboards"):
        on += ["--set", f"monitoring.{part}.enabled=true"]
    for part in ("serviceMonitor", "prometheusRule"):
        on += ["--set-json", f"monitoring.{part}.labels={mine}"]
    on += ["--set", f"monitoring.serviceMonitor.interval={prometheus.SCRAPE_SECONDS}s", "--wait", "--timeout=5m"]
    kubectl.helm("upgrade", "hub", str(CHARTS / "koinon-hub"), "-n", federation.hub_namespace, *on, seconds=320)
    on += ["--set", f"monitoring.namespace={namespace}"]

    def upgrade(site: str) -> None:
        kubectl.helm("upgrade", "site", str(CHARTS / "koinon-site"), "-n", federation.home(site), *on, seconds=320)

    with ThreadPoolExecutor(len(SITES)) as threads:
        list(threads.map(upgrade, SITES))


def granted_once(federation: League) -> Project:
    """A project that one hospital granted, with its cluster ready."""
    project = federation.hub.create_project("watched", sites=SITES, **OPTIONS)
    federation.wait_for_manifest(project, SITES[0])
    federation.grant(project, SITES[0], "--memory", "2", "--disk", "2")
    federation.clusters_ready(project, SITES[:1])
    return project


def revoke(federation: League, name: str, site: str) -> None:
    key = str(federation.root_key(site))
    told = federation.plugin("revoke", name, "-n", federation.home(site), "--root-key", key, "--yes", "--json")
    assert json.loads(told)["gone"]


def test_what_the_charts_offer_is_scraped(watched: Watched) -> None:
    assert watched.prometheus.unhealthy() == {}
    jobs = watched.prometheus.query("count by (job, endpoint) (up == 1)")
    shown = {(one["metric"]["job"], one["metric"]["endpoint"]): int(one["value"][1]) for one in jobs}
    each = len(SITES)
    assert shown == {
        ("koinon-hub", "https"): 1,
        ("koinon-site", "status"): each,
        ("koinon-site", "health"): each,
        ("ray", "metrics"): each,
    }


def test_every_panel_of_the_federation_dashboard_has_series(watched: Watched) -> None:
    asked = of_dashboard(files.FEDERATION.read_text(), {"namespace": watched.federation.hub_namespace})
    complete(watched, asked)


@pytest.mark.parametrize("site", SITES[:1])
def test_every_panel_of_a_hospitals_dashboard_has_series(watched: Watched, site: str) -> None:
    complete(watched, of_dashboard(files.HOSPITAL.read_text(), watched.variables(site)))


def test_the_other_hospitals_have_series_of_all_but_a_removal(watched: Watched) -> None:
    for site in SITES[1:]:
        asked = of_dashboard(files.HOSPITAL.read_text(), watched.variables(site))
        complete(watched, [one for one in asked if not one.where.startswith("From a grant's end")])


def test_the_dashboards_variables_find_their_values(watched: Watched) -> None:
    board = json.loads(files.HOSPITAL.read_text())
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series, label = variable["query"]["query"].removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
            site = SITES[0]
            filled = series.replace("$cluster", ".*").replace("$namespace", watched.federation.home(site))
            found = {one["metric"].get(label, "") for one in watched.prometheus.query(filled)}
            if variable["name"] == "work":
                assert found == {watched.federation.work(site)}
            elif variable["name"] == "namespace":
                assert {watched.federation.home(site) for site in SITES} <= found


def test_every_alert_is_loaded_and_reads_series_that_are_there(watched: Watched) -> None:
    rules = of_rules(files.HUB_RULES.read_text()) + of_rules(files.SITE_RULES.read_text())
    complete(watched, [side for rule in rules for side in rule.sides()])
    groups = watched.prometheus.get("rules")["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in loaded if rule["health"] != "ok"} == {}
    assert sorted(rule["name"] for rule in loaded) == sorted(
        alert.name for alert in (*HUB_ALERTS, *SITE_ALERTS * len(SITES))
    )


def test_no_alert_fires_in_a_federation_that_is_well(watched: Watched) -> None:
    alerts = watched.prometheus.get("alerts")["alerts"]
    firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    assert firing - EXPECTED == set()


def test_grafana_finds_the_dashboards(watched: Watched) -> None:
    for namespace, path in (
        (watched.federation.hub_namespace, files.FEDERATION),
        (watched.federation.home(SITES[0]), files.HOSPITAL),
    ):
        [found] = kubectl.find("configmaps", namespace, "grafana_dashboard=1")
        assert json.loads(found["data"][path.name]) == json.loads(path.read_text())


def test_runbooks_can_be_read_elsewhere(cluster: Cluster) -> None:
    rendered = kubectl.helm(
        "template", "hub", str(CHARTS / "koinon-hub"), "--set", "monitoring.prometheusRule.enabled=true",
        "--set", "monitoring.prometheusRule.runbooks=https://docs.lyon.example/runbooks",
        "-f", str(CHARTS / "koinon-hub/values-trial.yaml"),
    )  # fmt: skip
    [rule] = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] == "PrometheusRule"]
    urls = {each["annotations"]["runbook_url"] for group in rule["spec"]["groups"] for each in group["rules"]}
    assert urls == {f"https://docs.lyon.example/runbooks/{alert.name}.md" for alert in HUB_ALERTS}


def complete(watched: Watched, asked: list[Asked]) -> None:
    assert asked
    assert watched.prometheus.unknown(asked) == set()
    assert watched.prometheus.silent(asked, SEEN_SECONDS) == []
