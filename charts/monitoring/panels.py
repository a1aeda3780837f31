"""Panels, and how they stand on the grid, on top of the Grafana Foundation SDK.

Grafana's grid has 24 columns. A dashboard is a list of sections; a section is a title and bands, a band is columns side
by side, a column panels one above the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

GRID = 24
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"
Step = tuple[float | None, str]
Panel = stat.Panel | table.Panel | timeseries.Panel | statetimeline.Panel


@dataclass(frozen=True)
class Query:
    """`legend` as Grafana writes it: {{label}}."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Placed:
    height: int
    panel: Panel


@dataclass(frozen=True)
class Column:
    width: int
    panels: tuple[Placed, ...]


Band = tuple[Column, ...]


@dataclass(frozen=True)
class Section:
    title: str
    bands: tuple[Band, ...]


def band(height: int, *panels: Panel) -> Band:
    """Panels of one width and height, which fill the grid."""
    if GRID % len(panels):
        raise ValueError(f"{len(panels)} panels do not divide {GRID} columns")
    return tuple(Column(GRID // len(panels), (Placed(height, panel),)) for panel in panels)


def column(width: int, *panels: tuple[int, Panel]) -> Column:
    """Panels with their heights, one above the other."""
    return Column(width, tuple(Placed(height, panel) for height, panel in panels))


def place(board: dashboard.Dashboard, sections: Iterable[Section]) -> None:
    """Adds all panels, with numbers and places that change only with the sections."""
    number, top = 1, 0
    for section in sections:
        board.with_row(dashboard.Row(section.title).id(number).grid_pos(_at(0, top, GRID, 1)))
        number, top = number + 1, top + 1
        for columns in section.bands:
            left, deepest = 0, top
            for each in columns:
                y = top
                for placed in each.panels:
                    board.with_panel(placed.panel.id(number).grid_pos(_at(left, y, each.width, placed.height)))
                    number, y = number + 1, y + placed.height
                left, deepest = left + each.width, max(deepest, y)
            top = deepest


def _at(x: int, y: int, width: int, height: int) -> models.GridPos:
    return models.GridPos(x=x, y=y, w=width, h=height)


def number(
    title: str, description: str, queries: Sequence[Query], *, unit: str = "short", steps: Sequence[Step] = (),
    words: Mapping[str, tuple[str, str]] | None = None, none: str = "", decimals: int | None = None,
) -> stat.Panel:  # fmt: skip
    """One big number a query. `words` replaces values: value → (text, colour)."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .color_mode(shapes.BigValueColorMode.VALUE)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps))
    )
    if len(queries) > 1 or any(query.legend for query in queries):
        panel.text_mode(shapes.BigValueTextMode.VALUE_AND_NAME)
    if words:
        panel.mappings([_words(words)])
    if none:
        panel.no_value(none)
    if decimals is not None:
        panel.decimals(decimals)
    for query in _targets(queries):
        panel.with_target(query.instant())
    return panel


def lines(
    title: str, description: str, queries: Sequence[Query], *, unit: str = "short", stacked: bool = False,
    steps: Sequence[Step] = (), most: float | None = None, none: str = "", colors: Mapping[str, str] | None = None,
) -> timeseries.Panel:  # fmt: skip
    """Values over time; `stacked` as areas that add up. `colors` by what the legend says, where one means something."""
    legend = common.VizLegendOptions().display_mode(shapes.LegendDisplayMode.LIST).show_legend(True)
    mode = shapes.TooltipDisplayMode.MULTI
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .legend(legend.placement(shapes.LegendPlacement.BOTTOM))
        .tooltip(common.VizTooltipOptions().mode(mode).sort(shapes.SortOrder.DESCENDING))
        .fill_opacity(40 if stacked else 8)
        .show_points(shapes.VisibilityMode.AUTO)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL).group("A"))
    if steps:
        panel.thresholds(_thresholds(steps))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphThresholdsStyleMode.LINE))
    if most is not None:
        panel.max(most)
    if none:
        panel.no_value(none)
    for name, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    for query in _targets(queries):
        panel.with_target(query.range())
    return panel


def states(
    title: str, description: str, queries: Sequence[Query], words: Mapping[str, tuple[str, str]]
) -> statetimeline.Panel:
    """A strip a series, coloured by its value over time."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .mappings([_words(words)])
        .show_value(shapes.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().show_legend(False).display_mode(shapes.LegendDisplayMode.LIST))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    )
    for query in _targets(queries):
        panel.with_target(query.range())
    return panel


@dataclass(frozen=True)
class Cell:
    """A column of a table: the query's value, or a label (no `expr`)."""

    name: str
    label: str = ""
    expr: str = ""
    unit: str = ""
    width: int | None = None
    steps: Sequence[Step] = ()
    words: Mapping[str, tuple[str, str]] | None = None


def rows(
    title: str, description: str, cells: Sequence[Cell], *, sort: str, rising: bool = False, none: str = ""
) -> table.Panel:
    """A table with a row for each set of labels; all queries must keep the same labels."""
    panel = table.Panel().title(title).description(description).datasource(DATASOURCE)
    asked = [cell for cell in cells if cell.expr]
    names = {f"Value #{_letter(index)}": cell.name for index, cell in enumerate(asked)}
    names |= {cell.label: cell.name for cell in cells if cell.label}
    order = {name: index for index, name in enumerate(sorted(names, key=lambda n: _position(cells, names[n])))}
    for index, cell in enumerate(asked):
        query = prometheus.Dataquery().expr(cell.expr).ref_id(_letter(index)).instant()
        panel.with_target(query.format(PromQueryFormat.TABLE))
    organize = {"excludeByName": {"Time": True}, "renameByName": names, "indexByName": order}
    panel.transformations(
        [
            models.DataTransformerConfig(id_val="merge", options={}),
            models.DataTransformerConfig(id_val="organize", options=organize),
        ]
    )
    for cell in cells:
        if properties := _cell(cell):
            panel.override_by_name(cell.name, properties)
    panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(not rising)])
    if none:
        panel.no_value(none)
    return panel


def _position(cells: Sequence[Cell], name: str) -> int:
    return next(index for index, cell in enumerate(cells) if cell.name == name)


def _cell(cell: Cell) -> list[models.DynamicConfigValue]:
    properties: list[tuple[str, Any]] = []
    if cell.unit:
        properties.append(("unit", cell.unit))
    if cell.width:
        properties.append(("custom.width", cell.width))
    if cell.words:
        properties.append(("mappings", [_words(cell.words)]))
    if cell.steps:
        properties.append(("thresholds", _thresholds(cell.steps).build()))
    if cell.steps or cell.words:
        properties.append(("custom.cellOptions", {"type": "color-text"}))
    return [models.DynamicConfigValue(id_val=name, value=value) for name, value in properties]


def _targets(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().expr(query.expr).ref_id(_letter(index)).legend_format(query.legend or "__auto")
        for index, query in enumerate(queries)
    ]


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _thresholds(steps: Sequence[Step]) -> Builder[models.ThresholdsConfig]:
    listed = [models.Threshold(value=value, color=color) for value, color in steps or ((None, GREY),)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(listed)


def _words(words: Mapping[str, tuple[str, str]]) -> models.ValueMap:
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(words.items())
        }
    )


def board(uid: str, title: str, description: str, tag: str) -> dashboard.Dashboard:
    """An empty dashboard with the variables datasource and cluster."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["koinon", tag])
        .editable()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )


def variable(name: str, label: str, query: str, *, every: bool, hidden: bool = False) -> dashboard.QueryVariable:
    """Values of a label. `every` offers All, as the default; it matches series without the label, too."""
    made = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery", "qryType": 5})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if every:
        made.include_all(True).all_value(".*").current(models.VariableOption(selected=True, text="All", value="$__all"))
    if hidden:
        made.hide(models.VariableHide.HIDE_VARIABLE)
    return made
