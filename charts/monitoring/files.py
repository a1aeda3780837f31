"""The files that the charts ship, and what must be in them."""

from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from charts.monitoring import alerts, federation, hospital, hub_alerts, site_alerts

ROOT = Path(__file__).parents[2]
HUB, SITE = ROOT / "charts/koinon-hub/files", ROOT / "charts/koinon-site/files"
FEDERATION, HOSPITAL = HUB / "dashboards/federation.json", SITE / "dashboards/hospital.json"
HUB_RULES, SITE_RULES = HUB / "rules/hub.yaml", SITE / "rules/site.yaml"


def all_of_them() -> dict[Path, str]:
    """By path. The same text every time."""
    return {
        FEDERATION: _json(federation.build()),
        HOSPITAL: _json(hospital.build()),
        HUB_RULES: alerts.text("koinon-hub", hub_alerts.ALERTS),
        SITE_RULES: alerts.text("koinon-site", site_alerts.ALERTS),
    }


def _json(board: Dashboard) -> str:
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"
