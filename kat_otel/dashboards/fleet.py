"""The fleet: does somebody make it wait, who, what does it cost, and do they share a place?"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.bargauge import Panel as Gauge
from grafana_foundation_sdk.builders.table import Panel as Table

from kat_otel.dashboards import names
from kat_otel.dashboards.board import Board, Placed
from kat_otel.dashboards.incidents import (
    KINDS,
    active_now,
    causes,
    incidents_marked,
    paging_causes,
)
from kat_otel.dashboards.links import FLEET_UID, cell, label, to_instance
from kat_otel.dashboards.panels import (
    ALARM,
    CALM,
    Column,
    bars,
    curve,
    figure,
    gauge,
    in_unit,
    lines,
    mapped,
    now,
    rows,
    sorted_by,
    stacked,
)
from kat_otel.dashboards.promql import among, counted, rate, selected, told
from kat_otel.dashboards.sources import choice, typed

__all__ = ["fleet"]

_OF: Final = among(names.INSTANCE, "instance")
_LOST: Final = selected(names.LOST, _OF)
_CAUSED: Final = selected(names.CAUSED, _OF)
_INCIDENTS: Final = selected(names.INCIDENTS, _OF)
_MONEY: Final = "/ 3600 * $price"
_RANGE: Final = "$__range"


def fleet() -> Board:
    """Returns the fleet's dashboard."""
    board = Board(
        FLEET_UID,
        "KAT / Fleet",
        "Does a rank make the fleet wait? Who, what does it cost, and what do the culprits share?",
        "now-6h",
    )
    board.choose(
        choice(
            "instance",
            "Instance",
            "Running copies of a model.",
            f"{names.STEP}_count",
            names.INSTANCE,
            several=True,
        ),
        typed("price", "$ per GPU hour", "What an hour of one GPU costs you.", "2.50"),
    )
    board.annotate(incidents_marked(_OF))
    _first_row(board)
    _cost(board)
    _who(board)
    _where(board)
    _incidents(board)
    return board


def _first_row(board: Board) -> None:
    lost = f"sum({rate(_LOST)})"
    board.row(
        "",
        7,
        Placed(
            3,
            figure(
                "Make the fleet wait",
                "Causes that page now: they cost enough and have lasted. Not counted: findings "
                "below that, and what an operator silenced. Start with the table beside it.",
                now(f"count({paging_causes(_OF)}) or vector(0)"),
                "none",
                ((None, CALM), (1, ALARM)),
                filled=True,
            ).mappings(mapped({"0": ("nobody", CALM)})),
        ),
        Placed(
            3,
            figure(
                "GPUs lost now",
                "GPU seconds lost a second: so many GPUs do nothing but wait for a culprit.",
                now(lost),
                "none",
                ((None, CALM), (0.5, "orange"), (8, ALARM)),
            ).decimals(2),
        ),
        Placed(
            3,
            figure(
                "Cost of an hour like this",
                "GPUs lost now times the price of a GPU hour, which you set at the top.",
                now(f"{lost} * $price"),
                "currencyUSD",
                ((None, CALM), (1, "orange"), (25, ALARM)),
            ).decimals(2),
        ),
        Placed(
            3,
            figure(
                "Lost in this time range",
                "GPU time that incidents cost, in the time range at the top right, and in money.",
                now(f"sum(increase({_LOST}[{_RANGE}]))", "GPU time"),
                "s",
                ((None, "text"),),
                beside=now(f"sum(increase({_LOST}[{_RANGE}])) {_MONEY}", "cost"),
            ).override_by_name("cost", in_unit("currencyUSD", decimals=2)),
        ),
        Placed(12, active_now(_OF, of_all_instances=True)),
    )


def _cost(board: Board) -> None:
    board.row(
        "What it costs",
        8,
        Placed(
            15,
            stacked(
                "GPUs lost, by component",
                "GPU seconds lost a second, by the part that explains the incident best. Shaded "
                "times are those in which a cause pages.",
                [
                    curve(
                        f"sum by ({names.COMPONENT}) ({rate(_LOST)}) > 0",
                        f"{{{{{names.COMPONENT}}}}}",
                    )
                ],
                "none",
            ),
        ),
        Placed(
            9,
            gauge(
                "Cost by component, in this time range",
                "What the whole time range cost, by component. The runbook of a component says "
                "what to check, and when to drain the node.",
                now(
                    f"sort_desc(sum by ({names.COMPONENT}) (increase({_LOST}[{_RANGE}]))"
                    f" {_MONEY} > 0)",
                    f"{{{{{names.COMPONENT}}}}}",
                ),
                "currencyUSD",
            )
            .decimals(2)
            .no_value("nothing was lost"),
        ),
    )


def _who(board: Board) -> None:
    who = f"{names.INSTANCE}, {names.RANK}, {names.HOST}, {names.RACK}, {names.SWITCH}"
    caused = f"sum by ({who}) (increase({_CAUSED}[{_RANGE}]))"
    board.row(
        "Who makes the others wait",
        9,
        Placed(
            14,
            rows(
                "Worst ranks, in this time range",
                "GPU time that all ranks of an instance lost because of this one. Where several "
                "are to blame, each has an equal share.",
                [now(f"topk(20, {caused} > 0)"), now(f"topk(20, {caused} > 0) {_MONEY}")],
                [
                    Column(
                        names.INSTANCE,
                        "Instance",
                        links=[to_instance(cell("Instance"))],
                    ),
                    Column(names.RANK, "Rank", width=70),
                    Column(names.HOST, "Host"),
                    Column(names.RACK, "Rack", width=110),
                    Column(names.SWITCH, "Switch", width=110),
                    Column("Value #A", "GPU time lost", unit="s", width=120),
                    Column("Value #B", "Cost", unit="currencyUSD", width=100, decimals=2),
                ],
            ).sort_by([sorted_by("GPU time lost")]),
        ),
        Placed(
            10,
            lines(
                "GPUs lost, by culprit",
                "The ten that cost most in this time range: a step is the onset, a slope a "
                "fault that grows.",
                [
                    curve(
                        f"topk(10, sum by ({names.INSTANCE}, {names.RANK}) ({rate(_CAUSED)}) > 0)",
                        f"{{{{{names.INSTANCE}}}}} rank {{{{{names.RANK}}}}}",
                    )
                ],
                "none",
            ).data_links([to_instance(label(names.INSTANCE))]),
        ),
    )


def _where(board: Board) -> None:
    board.row(
        "What the culprits share: more than its share of the loss points to the place, not the GPU",
        8,
        Placed(8, _place("host", names.HOST)),
        Placed(8, _place("rack", names.RACK)),
        Placed(8, _place("switch", names.SWITCH)),
    )


def _place(word: str, place: str) -> Table:
    """How much is lost because of the ranks of a place, and how much of it chance would give it."""
    of = selected(names.CAUSED, _OF, told(place))
    lost = f"sum by ({place}) (increase({of}[{_RANGE}]))"
    worst = f"topk(10, {lost} > 0)"
    ranks = f"count by ({place}) ({of})"
    share = f"({worst} / on () group_left () sum(increase({of}[{_RANGE}])))"
    expected = f"({ranks} / on () group_left () count({of}))"
    return (
        rows(
            f"By {word}",
            f"GPU time lost because of the ranks of a {word}, and how many times its share "
            f"that is: 1 is what its number of ranks explains, 5 is five times as much. "
            f"A {word} that stands out has something in common: power, cooling, cable, firmware.",
            [now(worst), now(f"{ranks} and {worst}"), now(f"{share} / {expected}")],
            [
                Column(place, word.capitalize()),
                Column("Value #B", "Ranks", width=70),
                Column("Value #A", "GPU time lost", unit="s", width=120),
                Column(
                    "Value #C",
                    "Times its share",
                    width=120,
                    decimals=1,
                    steps=((None, "text"), (2, "orange"), (4, ALARM)),
                ),
            ],
        )
        .sort_by([sorted_by("Times its share")])
        .no_value(f"Nothing was lost, or no rank says its {word}.")
    )


def _incidents(board: Board) -> None:
    opened = f"sum by ({names.COMPONENT}) ({counted(_INCIDENTS, '$__interval')}) > 0"
    board.row(
        "Incidents",
        8,
        Placed(
            8,
            bars(
                "Opened, by component",
                "Incidents that began, one for each culprit rank.",
                [curve(opened, f"{{{{{names.COMPONENT}}}}}")],
                "none",
            ),
        ),
        Placed(
            8,
            lines(
                "Causes at work, by kind",
                "Incidents that are not resolved, pages and findings, by how they show.",
                [curve(f"count by ({names.KIND}) ({causes(_OF)})", f"{{{{{names.KIND}}}}}")],
                "none",
            ),
        ),
        Placed(8, _counts()),
    )


def _counts() -> Gauge:
    return gauge(
        "Opened in this time range, by kind",
        f"How incidents show. {KINDS}.",
        now(
            f"sort_desc(sum by ({names.KIND}) ({counted(_INCIDENTS, _RANGE)}) > 0)",
            f"{{{{{names.KIND}}}}}",
        ),
        "none",
    ).no_value("none")
