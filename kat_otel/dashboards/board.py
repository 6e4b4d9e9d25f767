"""A dashboard as it is put together: its variables, its rows, and where each panel stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders.dashboard import Dashboard as Frame
from grafana_foundation_sdk.builders.dashboard import DashboardLink, Row, TimePicker
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationContainer,
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    GridPos,
    Panel,
    VariableModel,
)

from kat_otel.dashboards.sources import PROMETHEUS, sources

__all__ = ["TAG", "Annotation", "Board", "Placed"]

TAG: Final = "kat"
"""By which the dashboards know each other."""

_WIDTH: Final = 24


class Placed(NamedTuple):
    """A panel and how much of its row it takes, of 24."""

    width: int
    panel: Builder[Panel]


class Annotation(AnnotationQuery):
    """Times of Prometheus' data source on all panels; the SDK's type lacks what names them.

    Args:
        name: what the switch for it is called.
        expression: PromQL; a time is marked while it gives a series of 1 or more.
        heading: what a mark says first; labels stand in double braces.
        words: what it says then.
        color: of the marks.
    """

    def __init__(self, name: str, expression: str, heading: str, words: str, color: str) -> None:
        super().__init__(name=name, datasource=PROMETHEUS, icon_color=color, expr=expression)
        self._heading = heading
        self._words = words

    def to_json(self) -> dict[str, object]:
        """Returns it as the dashboard's file has it."""
        return super().to_json() | {
            "step": "15s",
            "titleFormat": self._heading,
            "textFormat": self._words,
            "tagKeys": "",
        }


class Board:
    """Collects what a dashboard is made of.

    Args:
        uid: by which links find it: never changed.
        title: its name.
        about: what it answers.
        since: the time that it shows first, such as ``now-6h``.
    """

    def __init__(self, uid: str, title: str, about: str, since: str) -> None:
        self._frame = (
            Frame(title)
            .uid(uid)
            .description(about)
            .tags([TAG])
            .time(since, "now")
            .refresh("30s")
            .timezone("browser")
            .timepicker(TimePicker().refresh_intervals(["10s", "30s", "1m", "5m", "15m"]))
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .readonly()
            .link(
                DashboardLink("KAT")
                .type(DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .include_vars(include_vars=True)
                .keep_time(keep_time=True)
            )
        )
        self._annotations: list[AnnotationQuery] = []
        self._next_y = 0
        self._next_id = 1
        self.choose(*sources())

    def choose(self, *variables: Builder[VariableModel]) -> None:
        """Adds variables to those that the reader sets at the top."""
        for variable in variables:
            self._frame.with_variable(variable)

    def annotate(self, annotation: Annotation) -> None:
        """Adds marks to all panels that have a time axis."""
        self._annotations.append(annotation)

    def row(self, title: str, height: int, *placed: Placed) -> None:
        """Adds panels side by side under a heading, none if the title is ``""``.

        Raises:
            ValueError: they fill more or less than a row.
        """
        if sum(one.width for one in placed) != _WIDTH:
            raise ValueError(
                f"row {title!r}: its panels are {[one.width for one in placed]} wide, which is "
                f"not {_WIDTH} together: change a width in its dashboard's module"
            )
        if title:
            heading = Row(title).grid_pos(GridPos(x=0, y=self._next_y, w=_WIDTH, h=1))
            self._frame.with_row(heading.id(self._take_id()))
            self._next_y += 1
        x = 0
        for width, builder in placed:
            panel = builder.build()
            panel.id_val = self._take_id()
            panel.grid_pos = GridPos(x=x, y=self._next_y, w=width, h=height)
            self._frame.with_panel(_Built(panel))
            x += width
        self._next_y += height

    def build(self) -> Dashboard:
        """Returns the dashboard."""
        made = self._frame.build()
        made.annotations = AnnotationContainer(list_val=list(self._annotations))
        return made

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


class _Built(Builder[Panel]):
    """A panel that is built already."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def build(self) -> Panel:
        return self._panel


def placed(width: int, *panels: Builder[Panel]) -> Sequence[Placed]:
    """Panels of the same width."""
    return [Placed(width, panel) for panel in panels]
