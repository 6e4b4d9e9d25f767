"""The forms that panels take, so that the same kind of thing looks the same on every dashboard.

Each function returns a builder of the SDK, to which a dashboard adds what is its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    stat,
    table,
    text,
    timeseries,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery as Query
from grafana_foundation_sdk.models import common as shared
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from kat_otel.dashboards.sources import JAEGER, PROMETHEUS, JaegerSearch, JaegerTrace

__all__ = [
    "ALARM",
    "CALM",
    "Column",
    "bars",
    "colored",
    "columns",
    "curve",
    "figure",
    "found",
    "gauge",
    "in_unit",
    "lines",
    "link",
    "mapped",
    "matrix",
    "note",
    "now",
    "rows",
    "sorted_by",
    "stacked",
    "thresholds",
    "trace",
]

CALM: Final = "green"
ALARM: Final = "red"

Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; the first has no value."""

_Panel = TypeVar(
    "_Panel",
    stat.Panel,
    timeseries.Panel,
    bargauge.Panel,
    table.Panel,
    heatmap.Panel,
)


# --- queries -------------------------------------------------------------------------------


def curve(expression: str, legend: str = "", *, exemplars: bool = False) -> Query:
    """A query over the dashboard's time.

    Args:
        expression: PromQL.
        legend: the series' name; labels stand in double braces.
        exemplars: whether single steps are shown as points that lead to their traces.
    """
    made = Query().expr(expression).range().legend_format(legend)
    return made.exemplar(exemplar=True) if exemplars else made


def now(expression: str, legend: str = "") -> Query:
    """A query at the end of the dashboard's time."""
    return Query().expr(expression).instant().legend_format(legend)


def _asked(panel: _Panel, title: str, about: str, queries: Sequence[Query], unit: str) -> _Panel:
    panel.title(title).description(about).datasource(PROMETHEUS).unit(unit)
    for name, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(query.ref_id(name).datasource(PROMETHEUS))
    return panel


# --- what panels have ----------------------------------------------------------------------


def thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    """Colours by value."""
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=color) for value, color in steps])
    )


def mapped(words: Mapping[str, tuple[str, str]]) -> list[ValueMapping]:
    """Words and colours in the place of values."""
    return [
        ValueMap(
            options={
                value: ValueMappingResult(text=word, color=color, index=index)
                for index, (value, (word, color)) in enumerate(words.items())
            }
        )
    ]


def link(title: str, url: str) -> dashboard.DashboardLink:
    """A data link: where a click on a value leads."""
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url)


def _by(mode: FieldColorModeId) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(mode)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False)


# --- forms ---------------------------------------------------------------------------------


def figure(
    title: str,
    about: str,
    query: Query,
    unit: str,
    steps: Steps = ((None, CALM),),
    *,
    filled: bool = False,
    beside: Query | None = None,
) -> stat.Panel:
    """One number.

    Args:
        title: what it is.
        about: what it means and what to do about it.
        query: gives one series.
        unit: Grafana's name of the unit.
        steps: its colours.
        filled: colours the whole panel and not the number alone.
        beside: gives a second number; each is named by its query's legend then.
    """
    mode = shared.BigValueColorMode.BACKGROUND if filled else shared.BigValueColorMode.VALUE
    return (
        _asked(stat.Panel(), title, about, [query, beside] if beside else [query], unit)
        .color_mode(mode)
        .graph_mode(shared.BigValueGraphMode.NONE)
        .reduce_options(_last())
        .color_scheme(_by(FieldColorModeId.THRESHOLDS))
        .thresholds(thresholds(steps))
    )


def lines(title: str, about: str, queries: Sequence[Query], unit: str) -> timeseries.Panel:
    """Curves over time, each in the colour of its name."""
    return (
        _asked(timeseries.Panel(), title, about, queries, unit)
        .color_scheme(_by(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .line_width(1)
        .fill_opacity(0)
        .show_points(shared.VisibilityMode.NEVER)
        .min(0)
        .tooltip(
            common.VizTooltipOptions()
            .mode(shared.TooltipDisplayMode.MULTI)
            .sort(shared.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(shared.LegendDisplayMode.LIST)
            .placement(shared.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
    )


def stacked(title: str, about: str, queries: Sequence[Query], unit: str) -> timeseries.Panel:
    """Curves over time that add up."""
    return (
        lines(title, about, queries, unit)
        .fill_opacity(60)
        .stacking(common.StackingConfig().mode(shared.StackingMode.NORMAL))
    )


def bars(title: str, about: str, queries: Sequence[Query], unit: str) -> timeseries.Panel:
    """Counts over time, in stacked bars."""
    return (
        stacked(title, about, queries, unit)
        .draw_style(shared.GraphDrawStyle.BARS)
        .fill_opacity(80)
        .line_width(0)
    )


def gauge(title: str, about: str, query: Query, unit: str) -> bargauge.Panel:
    """Horizontal bars, one a series, longest first where the query sorts."""
    return (
        _asked(bargauge.Panel(), title, about, [query], unit)
        .orientation(shared.VizOrientation.HORIZONTAL)
        .display_mode(shared.BarGaugeDisplayMode.BASIC)
        .value_mode(shared.BarGaugeValueMode.TEXT)
        .color_scheme(_by(FieldColorModeId.CONTINUOUS_YL_RD))
        .reduce_options(_last())
        .min(0)
    )


class Column:
    """A column of a table.

    Args:
        source: what Prometheus calls it: a label, ``Value``, or ``Value #B`` of several queries.
        title: its heading.
        unit: Grafana's name of the unit, of a number.
        width: in pixels; what is left is shared by columns without one.
        links: where a click on a value leads.
        words: words and colours in the place of values.
        steps: colours by value.
        decimals: of a number.
    """

    def __init__(
        self,
        source: str,
        title: str,
        *,
        unit: str = "",
        width: int = 0,
        links: Sequence[dashboard.DashboardLink] = (),
        words: Mapping[str, tuple[str, str]] | None = None,
        steps: Steps = (),
        decimals: int | None = None,
    ) -> None:
        self.source = source
        self.title = title
        self._unit = unit
        self._width = width
        self._links = links
        self._words = words
        self._steps = steps
        self._decimals = decimals

    def properties(self) -> list[DynamicConfigValue]:
        """What differs from the table's other columns."""
        said: dict[str, object] = {}
        if self._unit:
            said["unit"] = self._unit
        if self._decimals is not None:
            said["decimals"] = self._decimals
        if self._width:
            said["custom.width"] = self._width
        if self._links:
            built = (made.build() for made in self._links)
            said["links"] = [{"title": made.title, "url": made.url} for made in built]
        if self._words:
            said["mappings"] = mapped(self._words)
        if self._steps:
            said["thresholds"] = thresholds(self._steps).build()
        if self._words or self._steps:
            said["custom.cellOptions"] = {"type": "color-text"}
        return [DynamicConfigValue(id_val=name, value=value) for name, value in said.items()]


def rows(title: str, about: str, queries: Sequence[Query], shown: Sequence[Column]) -> table.Panel:
    """A table: a row for each set of labels, what several queries say of it beside each other."""
    made = _asked(
        table.Panel(),
        title,
        about,
        [query.format(PromQueryFormat.TABLE) for query in queries],
        "short",
    )
    if len(queries) > 1:
        made.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    return columns(made, shown)


def columns(made: table.Panel, shown: Sequence[Column]) -> table.Panel:
    """Gives a table these columns, in this order, and no others."""
    made.with_transformation(
        DataTransformerConfig(
            id_val="filterFieldsByName",
            options={"include": {"names": [column.source for column in shown]}},
        )
    )
    made.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "indexByName": {column.source: at for at, column in enumerate(shown)},
                "renameByName": {column.source: column.title for column in shown},
                "excludeByName": {},
            },
        )
    )
    for column in shown:
        made.override_by_name(column.title, column.properties())
    return made.cell_height(shared.TableCellHeight.SM).thresholds(thresholds([(None, "text")]))


def sorted_by(column: str) -> common.TableSortByFieldState:
    """Orders a table by a column, the largest first."""
    return common.TableSortByFieldState().display_name(column).desc(desc=True)


def matrix(title: str, about: str, query: Query, unit: str, row: str) -> heatmap.Panel:
    """A heat map over time: a row for each series, which its query's legend names."""
    return (
        _asked(heatmap.Panel(), title, about, [query], unit)
        .calculate(calculate=False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .fill("dark-orange")
            .steps(64)
            .min(0)
        )
        .cell_gap(0)
        .cell_values(heatmap.CellValues().unit(unit))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(shared.HeatmapCellLayout.UNKNOWN))
        .y_axis(heatmap.YAxisConfig().axis_label(row).axis_placement(shared.AxisPlacement.LEFT))
        .show_legend()
        .mode(shared.TooltipDisplayMode.SINGLE)
    )


def found(
    title: str,
    about: str,
    search: JaegerSearch,
    links: Sequence[dashboard.DashboardLink] = (),
) -> table.Panel:
    """Traces that Jaeger finds. Without links a click on one opens it in Grafana's own view."""
    made = table.Panel().title(title).description(about).datasource(JAEGER).with_target(search)
    ids = Column("traceID", "Trace", links=links)
    for column in (ids, Column("traceName", "Step"), Column("duration", "Took", width=110)):
        name = [DynamicConfigValue(id_val="displayName", value=column.title)]
        made.override_by_name(column.source, [*name, *column.properties()])
    return made.cell_height(shared.TableCellHeight.SM).no_value("Jaeger has none.")


def trace(title: str, about: str, query: JaegerTrace) -> dashboard.Panel:
    """The spans of a trace, as Jaeger's own page shows them."""
    made = dashboard.Panel().type("traces").title(title).description(about)
    return made.datasource(JAEGER).with_target(query)


def in_unit(unit: str, *, decimals: int) -> list[DynamicConfigValue]:
    """Another unit than the rest of the panel."""
    return [
        DynamicConfigValue(id_val="unit", value=unit),
        DynamicConfigValue(id_val="decimals", value=decimals),
    ]


def colored(color: str) -> DynamicConfigValue:
    """A fixed colour, of a series that is always there."""
    return DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def note(title: str, words: str) -> text.Panel:
    """Words, in Markdown."""
    return text.Panel().title(title).mode(TextMode.MARKDOWN).content(words)
