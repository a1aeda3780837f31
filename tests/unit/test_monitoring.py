"""The charts' dashboards and rules: made anew they are the same, they are laid out well, each alert has its page."""

import itertools
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from prometheus_client.metrics import MetricWrapperBase

from charts.monitoring import alerts, federation, files, hospital, panels, queries
from charts.monitoring.hub_alerts import ALERTS as HUB_ALERTS
from charts.monitoring.site_alerts import ALERTS as SITE_ALERTS
from koinon.agent import status
from koinon.agent.meter import Meter
from koinon.cli.kube.app import app as kubectl_plugin
from koinon.cli.main import app as command
from koinon.domain import refusals
from koinon.gateway.metrics import Metrics
from koinon_operator import metrics as operator_metrics
from koinon_operator.cache import Cache
from koinon_operator.gauges import Gauges

BOARDS = {"federation": files.FEDERATION, "hospital": files.HOSPITAL}
RUNBOOKS = files.ROOT / "docs/runbooks"
NAMES = [alert.name for alert in (*HUB_ALERTS, *SITE_ALERTS)]
PAGES = sorted(RUNBOOKS.glob("*.md"))


def board(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(BOARDS[name].read_text())
    return loaded


def asked(name: str) -> set[str]:
    """Names of the metrics that a dashboard reads."""
    found = (queries.metrics(one.expr) for one in queries.of_dashboard(BOARDS[name].read_text()))
    return set().union(*found)


@pytest.mark.parametrize("path", files.all_of_them(), ids=lambda path: path.name)
def test_the_shipped_files_are_those_that_are_made_now(path: Path) -> None:
    assert path.read_text() == files.all_of_them()[path], "run: python -m charts.monitoring"


@pytest.mark.parametrize("path", files.all_of_them(), ids=lambda path: path.name)
def test_helm_cannot_mistake_a_shipped_file_for_a_template(path: Path) -> None:
    """The charts put them in as they are; `tpl` would take {{ $labels.site }} for its own."""
    templates = path.parents[2] / "templates"
    assert not [found for found in templates.rglob("*.yaml") if re.search(r"tpl.*Files\.Get", found.read_text())]


# -- dashboards


@pytest.mark.parametrize("name", BOARDS)
def test_panels_lie_on_the_grid_side_by_side_without_gaps(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in board(name)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= panels.GRID, panel["title"]
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]
    assert len(taken) == panels.GRID * (1 + max(y for _, y in taken))


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_says_what_it_shows(name: str) -> None:
    shown = list(queries.panels(board(name)))
    titles = [panel["title"] for panel in shown]
    assert len(set(titles)) == len(titles)
    ids = [panel["id"] for panel in board(name)["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in shown:
        assert panel["description"].strip(), panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_links_to_the_dashboards_stay() -> None:
    assert (federation.UID, hospital.UID) == ("koinon-federation", "koinon-hospital")
    assert [board(name)["uid"] for name in BOARDS] == [federation.UID, hospital.UID]


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_is_of_the_chosen_cluster_and_namespace(name: str) -> None:
    variables = {variable["name"] for variable in board(name)["templating"]["list"]}
    assert {"datasource", "cluster", "namespace"} <= variables
    for panel in queries.panels(board(name)):
        for target in panel["targets"]:
            selectors = re.findall(r"(?:koinon|ray)_\w+(\{[^}]*\})?", target["expr"])
            assert selectors
            for selector in selectors:
                if not selector and "by (" in target["expr"]:
                    continue
                assert 'cluster=~"$cluster"' in selector, (panel["title"], target["expr"])
                assert re.search(r'(namespace|hospital)=~"\$(namespace|work)"', selector), target["expr"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables


def test_the_first_row_of_the_federation_answers_who_waits_for_whom() -> None:
    row, first = board("federation")["panels"][:2]
    assert row["type"] == "row"
    assert first["title"] == "Which runs wait, for whom, since when"
    assert first["gridPos"]["y"] == 1
    [organize] = [each["options"] for each in first["transformations"] if each["id"] == "organize"]
    shown = sorted(organize["renameByName"], key=organize["indexByName"].__getitem__)
    columns = [organize["renameByName"][name] for name in shown]
    assert columns == ["For whom", "Why", "Run", "Project", "Waiting", "Since", "Until"]


def test_the_federation_shows_no_hospitals_inside() -> None:
    counted = {family.name for family in Metrics("1").registry.collect()}
    for name in asked("federation"):
        assert not name.startswith(("koinon_agent_", "koinon_operator_", "ray_")), name
        family = re.sub(r"_(total|bucket|sum|count)$", "", name)
        # The others are of now: the services' test asks a real hub for them.
        assert family in counted or re.match(r"koinon_(runs|sites?|wait|part|disk|scheduler)_?", name), name


def test_a_hospitals_dashboard_shows_its_own_and_nothing_of_others() -> None:
    assert all(name.startswith(("koinon_agent_", "koinon_operator_", "ray_")) for name in asked("hospital"))


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_shows_a_loss_or_a_score(name: str) -> None:
    """Metrics of models are masked, and shown only as those of all sites together, in the run."""
    words = {word for metric in asked(name) for word in metric.split("_")}
    assert not words & {"loss", "accuracy", "score", "auc", "auroc", "records", "rows"}


# -- rules


def test_alerts_are_told_apart_and_sorted_by_who_must_act() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for path in (files.HUB_RULES, files.SITE_RULES):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                assert rule["labels"] == {"severity": rule["labels"]["severity"]}
                assert rule["labels"]["severity"] in ("critical", "warning", "info")
                assert re.fullmatch(r"[0-9]+[mh]", rule["for"])
                assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
                assert rule["annotations"]["runbook_url"] == f"{alerts.RUNBOOKS}/{rule['alert']}.md"


def test_the_hubs_alerts_read_the_hub_and_the_sites_their_own() -> None:
    of_hub = set().union(*(queries.metrics(alert.expr) for alert in HUB_ALERTS))
    of_site = set().union(*(queries.metrics(alert.expr) for alert in SITE_ALERTS))
    assert not [name for name in of_hub if name.startswith(("koinon_agent_", "koinon_operator_", "ray_"))]
    assert [name for name in of_site if not name.startswith(("koinon_agent_", "koinon_operator_", "ray_"))] == ["up"]


def test_what_a_hospitals_files_read_is_exported() -> None:
    own: list[Any] = [value for value in vars(operator_metrics).values() if isinstance(value, MetricWrapperBase)]
    own += [Gauges(Cache(), {"lyon": "lyon-work"}), Meter().registry]
    counted = {family.name for each in own for family in each.collect()}
    of_now = Path(status.__file__).read_text()
    for name in sorted(asked("hospital").union(*(queries.metrics(alert.expr) for alert in SITE_ALERTS))):
        family = re.sub(r"_(total|bucket|sum|count)$", "", name)
        if name.startswith("koinon_operator_"):
            assert family in counted, name
        elif name.startswith("koinon_agent_"):
            assert family in counted or f'"{family}"' in of_now or f'"{family[13:]}":' in of_now, name


# -- runbooks


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    assert sorted(page.stem for page in PAGES if page.stem != "README") == sorted(NAMES)
    listed = (RUNBOOKS / "README.md").read_text()
    for alert in (*HUB_ALERTS, *SITE_ALERTS):
        assert f"[{alert.name}]({alert.name}.md), {alert.severity} |" in listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_it_means_how_to_look_and_what_to_do(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (RUNBOOKS / link).exists(), link
    assert max(map(len, text.splitlines())) <= 200
    if page.stem != "README":
        assert text.startswith(f"# {page.stem}\n\n**Means:** ")
        assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Look", "## Do"]
        look, do = text.split("## Look")[1].split("## Do")
        assert look.strip()
        assert do.strip()


def test_the_page_about_refusals_has_every_code() -> None:
    text = (RUNBOOKS / "KoinonSitesRefuse.md").read_text()
    assert set(re.findall(r"`([a-z_]+)`", text)) == refusals.CODES


def commands(page: Path) -> Iterator[list[str]]:
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(), re.M | re.S):
        for line in block.splitlines():
            yield shlex.split(line.split(" | ")[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    inline = [shlex.split(text) for text in re.findall(r"`((?:kubectl )?koinon [^`…]+)`", page.read_text())]
    for words in [*commands(page), *inline]:
        assert words[0] in ("koinon", "kubectl", "helm", "curl", "date"), words
        if words[0] == "koinon":
            known(typer.main.get_command(command), words[1:])
        elif words[:2] == ["kubectl", "koinon"]:
            known(typer.main.get_command(kubectl_plugin), words[2:])


def known(group: Any, words: list[str]) -> None:
    """Fails unless the words name a command and options that it has."""
    while isinstance(group, click.Group) or hasattr(group, "commands"):
        subcommands: Mapping[str, Any] = group.commands
        assert words, "a group is no command"
        assert words[0] in subcommands, words
        group, words = subcommands[words[0]], words[1:]
    options = {name for parameter in group.params for name in parameter.opts}
    for word in words:
        assert not word.startswith("-") or word.split("=")[0] in options, (group.name, word)
