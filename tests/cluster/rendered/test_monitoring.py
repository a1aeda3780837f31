"""Monitors, rules and dashboards of both charts, with files that stand in for those that are there."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.rendered import render
from tests.cluster.rendered.render import SITE, TRIAL, Object

_RULE = {"alert": "Away", "expr": "up == 0", "annotations": {"runbook_url": "https://koinon.dev/docs/runbooks/away.md"}}
_DASHBOARD = {"title": "Stand-in", "panels": [{"legend": "{{site}} of {{ $labels.x }}", "text": 'a "quoted" word\n'}]}


def monitored(chart: str, **more: Any) -> Object:
    parts = {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"team": "x"}},
        "dashboards": {"enabled": True},
    }
    site = {"namespace": "monitoring"} if chart == "koinon-site" else {}
    return render.merged(SITE if chart == "koinon-site" else TRIAL, {"monitoring": render.merged(parts | site, more)})


@pytest.fixture
def charts(tmp_path: Path) -> Path:
    for chart in render.NAMES:
        shutil.copytree(render.CHARTS / chart, tmp_path / chart)
        for kind in ("dashboards", "rules"):
            shutil.rmtree(tmp_path / chart / "files" / kind, ignore_errors=True)
            (tmp_path / chart / "files" / kind).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("chart", render.NAMES)
def test_all_is_off_unless_wanted(chart: str) -> None:
    found = render.objects(chart, SITE if chart == "koinon-site" else TRIAL)
    assert not [o for o in found if "monitoring.coreos.com" in o["apiVersion"] or "dashboard" in o["metadata"]["name"]]


@pytest.mark.parametrize("chart", render.NAMES)
def test_monitors_find_a_port_and_carry_extra_labels(chart: str) -> None:
    found = render.objects(chart, monitored(chart))
    services = [o for o in found if o["kind"] == "Service"]
    monitors = [o for o in found if o["kind"] == "ServiceMonitor"]
    assert len(monitors) == (2 if chart == "koinon-site" else 1)
    for monitor in monitors:
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [s for s in services if wanted <= s["metadata"]["labels"].items()]
        [endpoint] = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["path"] == "/metrics"


def test_the_hub_is_verified_when_it_is_read() -> None:
    def tls(values: Object) -> Any:
        [monitor] = [o for o in render.objects("koinon-hub", values) if o["kind"] == "ServiceMonitor"]
        return monitor["spec"]["endpoints"][0].get("tlsConfig")

    own = {"serverName": "it-koinon-hub", "ca": {"secret": {"name": "it-koinon-hub-tls", "key": "ca.crt"}}}
    assert tls(monitored("koinon-hub")) == own
    assert tls(monitored("koinon-hub", serviceMonitor={"tlsConfig": {"serverName": "x"}})) == {"serverName": "x"}
    bought = monitored("koinon-hub") | {"tls": {"existingSecret": "t", "names": ["hub.example.org", "h"]}}
    assert tls(bought) == {"serverName": "hub.example.org"}
    ingress = {"enabled": True, "host": "outside.example.org"}
    assert tls(bought | {"tls": {"existingSecret": "t"}, "ingress": ingress}) == {"serverName": "outside.example.org"}
    inside = {"tls": {"atIngress": True}, "ingress": ingress, "networkPolicy": {"from": [{"podSelector": {}}]}}
    assert tls(monitored("koinon-hub", namespace="watching") | inside) is None  # plain HTTP


@pytest.mark.parametrize("given", ["", "our-token"])
def test_prometheus_shows_the_token_that_the_gateway_wants(given: str) -> None:
    """Metrics name sites and runs, and the gateway's address is public."""
    found = render.objects("koinon-hub", monitored("koinon-hub", serviceMonitor={"existingSecret": given}))
    name = given or "it-koinon-hub-metrics"
    [monitor] = [o for o in found if o["kind"] == "ServiceMonitor"]
    assert monitor["spec"]["endpoints"][0]["authorization"] == {"credentials": {"name": name, "key": "token"}}
    [gateway] = [o for o in found if o["kind"] == "StatefulSet" and o["metadata"]["name"] == "it-koinon-hub"]
    environment = gateway["spec"]["template"]["spec"]["containers"][0]["env"]
    [token] = [entry["valueFrom"] for entry in environment if entry["name"] == "KOINON_METRICS_TOKEN"]
    assert token == {"secretKeyRef": {"name": name, "key": "token"}}
    made = [o for o in found if o["kind"] == "Secret" and o["metadata"]["name"] == name]
    assert [list(o["data"]) for o in made] == ([] if given else [["token"]])


def test_another_generated_token_is_another_gateway() -> None:
    def annotations(**more: Any) -> tuple[Any, str]:
        own = {"gateway": {"podAnnotations": {"a": "b"}}}
        found = render.objects("koinon-hub", monitored("koinon-hub", serviceMonitor=more) | own)
        tokens = [o["data"]["token"] for o in found if o["metadata"]["name"].endswith("-metrics")]
        [gateway] = [o for o in found if o["kind"] == "StatefulSet" and o["metadata"]["name"] == "it-koinon-hub"]
        return gateway["spec"]["template"]["metadata"]["annotations"], "".join(tokens)

    found, token = annotations()
    assert found == {"a": "b", "checksum/metrics-token": hashlib.sha256(token.encode()).hexdigest()}
    assert annotations(existingSecret="ours") == ({"a": "b"}, "")


def test_ray_pods_are_read_by_their_port() -> None:
    [monitor] = [o for o in render.objects("koinon-site", monitored("koinon-site")) if o["kind"] == "PodMonitor"]
    assert monitor["metadata"]["namespace"] == "lyon-work"
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/component"
    assert monitor["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/managed-by": "koinon",
        "app.kubernetes.io/component": "ray",
    }
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "15s"}]


@pytest.mark.parametrize("chart", render.NAMES)
def test_dashboards_are_the_files(chart: str, charts: Path) -> None:
    for name in ("one", "two"):
        (charts / chart / "files" / "dashboards" / f"{name}.json").write_text(json.dumps(_DASHBOARD, indent=1))
    found = render.objects(chart, monitored(chart, dashboards={"annotations": {"folder": "Koinon"}}), folder=charts)
    maps = [o for o in found if o["kind"] == "ConfigMap" and "dashboard" in o["metadata"]["name"]]
    assert [next(iter(o["data"])) for o in maps] == ["one.json", "two.json"]
    for o in maps:
        assert o["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert o["metadata"]["annotations"] == {"folder": "Koinon"}
        assert [json.loads(text) for text in o["data"].values()] == [_DASHBOARD]


@pytest.mark.parametrize("chart", render.NAMES)
def test_rules_are_the_groups_of_the_files(chart: str, charts: Path) -> None:
    for name in ("a", "b"):
        text = yaml.safe_dump({"groups": [{"name": name, "rules": [_RULE]}]})
        (charts / chart / "files" / "rules" / f"{name}.yaml").write_text(text)

    def groups(**more: Any) -> list[Object]:
        found = render.objects(chart, monitored(chart, **more), folder=charts)
        [rule] = [o for o in found if o["kind"] == "PrometheusRule"]
        assert rule["metadata"]["labels"]["team"] == "x"
        listed: list[Object] = rule["spec"]["groups"]
        return listed

    assert groups() == [{"name": name, "rules": [_RULE]} for name in ("a", "b")]
    moved = groups(prometheusRule={"runbooks": "https://intranet.example/books"})
    assert moved[0]["rules"][0]["annotations"]["runbook_url"] == "https://intranet.example/books/away.md"


@pytest.mark.parametrize("chart", render.NAMES)
def test_without_files_there_is_an_empty_rule_and_no_dashboard(chart: str, charts: Path) -> None:
    found = render.objects(chart, monitored(chart), folder=charts)
    assert [o["spec"]["groups"] for o in found if o["kind"] == "PrometheusRule"] == [[]]
    assert not [o for o in found if "dashboard" in o["metadata"]["name"]]
