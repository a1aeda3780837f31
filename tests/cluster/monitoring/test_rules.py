"""Every alert of the charts, on series made up for promtool: it fires where it must, and not just short of that."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.monitoring import files
from charts.monitoring.alerts import Alert
from charts.monitoring.hub_alerts import ALERTS as HUB_ALERTS
from charts.monitoring.site_alerts import ALERTS as SITE_ALERTS
from tests.cluster.monitoring import rule_cases
from tests.cluster.monitoring.prometheus_program import program
from tests.cluster.monitoring.rule_cases import AT, Case

CASES = [
    pytest.param(rules, alert, cases[alert.name], id=alert.name)
    for rules, alerts, cases in (
        (files.HUB_RULES, HUB_ALERTS, rule_cases.HUB),
        (files.SITE_RULES, SITE_ALERTS, rule_cases.SITE),
    )
    for alert in alerts
]


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def unit(name: str, series: dict[str, str], alert: str, expected: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": labels, "values": values} for labels, values in series.items()],
        "alert_rule_test": [{"eval_time": f"{AT}m", "alertname": alert, "exp_alerts": expected}],
    }


def without_constants(rules: Path, name: str) -> dict[str, Any]:
    """The one alert of the shipped file, with the annotation that depends on the series."""
    [rule] = [r for group in yaml.safe_load(rules.read_text())["groups"] for r in group["rules"] if r["alert"] == name]
    rule["annotations"] = {"summary": rule["annotations"]["summary"]}
    return {"groups": [{"name": "test", "rules": [rule]}]}


def test_prometheus_takes_the_shipped_rules() -> None:
    shown = promtool("check", "rules", "--lint=all", "--lint-fatal", files.HUB_RULES, files.SITE_RULES)
    assert f"{len(HUB_ALERTS)} rules" in shown
    assert f"{len(SITE_ALERTS)} rules" in shown


@pytest.mark.parametrize(("rules", "alert", "case"), CASES)
def test_an_alert_fires_and_does_not_fire(rules: Path, alert: Alert, case: Case, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(json.dumps(without_constants(rules, alert.name)))
    labels = case.labels | {"severity": alert.severity}
    told = [{"exp_labels": labels, "exp_annotations": {"summary": case.summary}}]
    tests = [unit("fires", case.fires, alert.name, told), unit("quiet", case.quiet, alert.name, [])]
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": tests}))
    promtool("test", "rules", tmp_path / "tests.yml")


@pytest.mark.parametrize(
    ("rules", "name", "labels"),
    [
        (files.HUB_RULES, "KoinonHubDown", {"job": "koinon-hub"}),
        (files.SITE_RULES, "KoinonAgentDown", {"job": "koinon-site", "endpoint": "status"}),
        (files.SITE_RULES, "KoinonOperatorDown", {"job": "koinon-site", "endpoint": "health"}),
    ],
)
def test_what_is_not_scraped_at_all_is_down(rules: Path, name: str, labels: dict[str, str], tmp_path: Path) -> None:
    content = without_constants(rules, name)
    (tmp_path / "rules.yml").write_text(json.dumps(content))
    [rule] = content["groups"][0]["rules"]
    told = [{"exp_labels": labels | rule["labels"], "exp_annotations": rule["annotations"]}]
    tests = [unit("absent", {'up{job="other"}': rule_cases.flat(1)}, name, told)]
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": tests}))
    promtool("test", "rules", tmp_path / "tests.yml")
