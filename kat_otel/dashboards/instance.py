"""One instance: where its step time goes, who comes late, and what its users feel."""

from __future__ import annotations

from typing import Final

from kat_otel import semconv
from kat_otel.dashboards import names
from kat_otel.dashboards.board import Board, Placed
from kat_otel.dashboards.engines import between_tokens, first_token, model_choice
from kat_otel.dashboards.incidents import active_now, incidents_marked, paging_causes
from kat_otel.dashboards.links import INSTANCE_UID, label, to_incident
from kat_otel.dashboards.panels import (
    ALARM,
    CALM,
    colored,
    curve,
    figure,
    found,
    lines,
    mapped,
    matrix,
    now,
    stacked,
)
from kat_otel.dashboards.promql import among, equals, mean, quantile, rate, selected
from kat_otel.dashboards.sources import JaegerSearch, choice

__all__ = ["instance"]

_OF: Final = equals(names.INSTANCE, "$instance")
_RANKS: Final = among(names.RANK, "rank")
_PARTS: Final = selected(names.PARTS, _OF, _RANKS)

_PART_COLORS: Final = {
    "compute": "blue",
    "transfer": "purple",
    "host": "yellow",
    "wait": "dark-red",
}
"""Waiting stands on top, in red: it is what a culprit costs."""


def instance() -> Board:
    """Returns an instance's dashboard."""
    board = Board(
        INSTANCE_UID,
        "KAT / Instance",
        "Where an instance's step time goes, which rank comes late, and what its users feel.",
        "now-1h",
    )
    board.choose(
        choice(
            "instance",
            "Instance",
            "A running copy of a model.",
            f"{names.STEP}_count",
            names.INSTANCE,
            several=False,
        ),
        choice(
            "rank",
            "Rank",
            "Which ranks the panels by rank show.",
            selected(names.INFO, _OF),
            names.RANK,
            several=True,
        ),
        model_choice(),
    )
    board.annotate(incidents_marked(_OF))
    _first_row(board)
    _parts(board)
    _late(board)
    _users(board)
    _steps(board)
    return board


def _first_row(board: Board) -> None:
    board.row(
        "",
        7,
        Placed(
            3,
            figure(
                "Make it wait",
                "Causes in this instance that page now. The table beside it says who.",
                now(f"count({paging_causes(_OF)}) or vector(0)"),
                "none",
                ((None, CALM), (1, ALARM)),
                filled=True,
            ).mappings(mapped({"0": ("nobody", CALM)})),
        ),
        Placed(
            3,
            figure(
                "Step time, median",
                "Of the last minutes. A decode step is one token of every running request.",
                now(quantile(0.5, names.STEP, _OF)),
                "s",
                ((None, "text"),),
            ),
        ),
        Placed(
            3,
            figure(
                "Waiting",
                "Part of the ranks' time in which they wait for the last rank at collectives. "
                "Some waiting is usual: compare with a quiet hour.",
                now(
                    f"sum({rate(selected(names.PARTS, _OF, equals(names.PART, 'wait')))}) "
                    f"/ sum({rate(selected(names.PARTS, _OF))})"
                ),
                "percentunit",
                ((None, "text"), (0.15, "orange"), (0.3, ALARM)),
            ),
        ),
        Placed(
            3,
            figure(
                "GPUs lost now",
                "GPU seconds lost a second: so many of its GPUs do nothing but wait for a culprit.",
                now(f"sum({rate(selected(names.LOST, _OF))})"),
                "none",
                ((None, CALM), (0.5, "orange"), (8, ALARM)),
            ).decimals(2),
        ),
        Placed(12, active_now(_OF, of_all_instances=False)),
    )


def _parts(board: Board) -> None:
    part = stacked(
        "Step time by part, mean of the ranks",
        "compute: kernels; transfer: data on its way, after all ranks have arrived; host: the GPU "
        "has nothing to do; wait: for the last rank. A fault of one rank makes wait grow, of its "
        "own part only on that rank. Known of steps that came whole.",
        [
            curve(
                f"sum by ({names.PART}) ({rate(_PARTS)}) / scalar(sum({rate(_PARTS)})) "
                f"* {mean(names.STEP, _OF)}",
                f"{{{{{names.PART}}}}}",
            )
        ],
        "s",
    )
    for name, color in _PART_COLORS.items():
        part.override_by_name(name, [colored(color)])
    wait = selected(names.PARTS, _OF, _RANKS, equals(names.PART, "wait"))
    board.row(
        "Where the step time goes",
        9,
        Placed(14, part),
        Placed(
            10,
            lines(
                "Waiting, by rank",
                "Part of each rank's time in which it waits. The line at the bottom is the rank "
                "that the others wait for: who comes last waits for nobody.",
                [
                    curve(
                        f"sum by ({names.RANK}) ({rate(wait)}) "
                        f"/ sum by ({names.RANK}) ({rate(_PARTS)})",
                        f"rank {{{{{names.RANK}}}}}",
                    )
                ],
                "percentunit",
            ),
        ),
    )


def _late(board: Board) -> None:
    late = (
        f"sum by ({names.RANK}) ({rate(selected(f'{names.SKEW}_sum', _OF, _RANKS))}) "
        f"/ sum by ({names.RANK}) ({rate(selected(f'{names.SKEW}_count', _OF, _RANKS))})"
    )
    impact = selected(names.IMPACT, _OF)
    board.row(
        "Who comes late",
        10,
        Placed(
            14,
            matrix(
                "Lateness at collectives, by rank",
                "How much later than the first rank each comes, the mean over the steps of the "
                "median over a step's collectives. A dark row is a rank that is late all along; "
                "one that falls behind once a step shows in its waiting instead. Known of steps "
                "that came whole.",
                curve(late, f"{{{{{names.RANK}}}}}"),
                "s",
                "rank",
            ),
        ),
        Placed(
            10,
            lines(
                "Cost of each step, by culprit",
                "What a step would save without this cause. Side unknown is rank -1. A click "
                "leads to the incident.",
                [
                    curve(
                        f"max by ({names.RANK}, {names.KIND}, {names.COMPONENT}) ({impact})",
                        f"rank {{{{{names.RANK}}}}}: {{{{{names.KIND}}}}}, "
                        f"{{{{{names.COMPONENT}}}}}",
                    )
                ],
                "s",
            ).data_links(
                [
                    to_incident(
                        "${instance}",
                        label(names.KIND),
                        label(names.COMPONENT),
                        label(names.RANK),
                    )
                ]
            ),
        ),
    )


def _users(board: Board) -> None:
    board.row(
        "What its users feel; shaded: a cause pages",
        8,
        Placed(12, first_token()),
        Placed(12, between_tokens()),
    )


def _steps(board: Board) -> None:
    board.row(
        "Steps",
        9,
        Placed(
            12,
            lines(
                "Step time",
                "Median and slow steps. A point is one step: a click on it opens its trace in "
                "Jaeger.",
                [
                    curve(
                        quantile(q, names.STEP, _OF),
                        f"p{100 * q:g}",
                        exemplars=q == _SLOWEST,
                    )
                    for q in (0.5, 0.95, _SLOWEST)
                ],
                "s",
            ),
        ),
        Placed(
            12,
            found(
                "Steps with an incident, in Jaeger",
                "The traces of steps in which something was found. A click opens the trace.",
                JaegerSearch(
                    {semconv.INSTANCE_ID: "$instance", semconv.ANOMALOUS: "true"}, limit=20
                ),
            ),
        ),
    )


_SLOWEST: Final = 0.99
