"""One incident: what it costs, what speaks for it, what to do, and the traces of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from grafana_foundation_sdk.builders.table import Panel as Table

from kat_otel import semconv
from kat_otel.dashboards import names
from kat_otel.dashboards.board import Board, Placed
from kat_otel.dashboards.incidents import KINDS, RANK_WORDS, incidents_marked
from kat_otel.dashboards.links import INCIDENT_UID, to_trace
from kat_otel.dashboards.panels import (
    ALARM,
    CALM,
    Column,
    curve,
    figure,
    found,
    lines,
    mapped,
    note,
    now,
    rows,
    trace,
)
from kat_otel.dashboards.promql import equals, mean, rate, selected
from kat_otel.dashboards.sources import JaegerSearch, JaegerTrace, choice, typed
from kat_otel.report.advice import KIND_MEANING, usual_step
from kat_otel.verdict import Component, Kind

__all__ = ["incident"]

_INSTANCE: Final = equals(names.INSTANCE, "$instance")
_RANK: Final = equals(names.RANK, "$rank")
_OTHERS: Final = f'{names.RANK}!="$rank"'
_IT: Final = (
    _INSTANCE,
    equals(names.KIND, "$kind"),
    equals(names.COMPONENT, "$component"),
    _RANK,
)
_IMPACT: Final = selected(names.IMPACT, *_IT)
_RANGE: Final = "$__range"


def incident() -> Board:
    """Returns the dashboard of one incident."""
    board = Board(
        INCIDENT_UID,
        "KAT / Incident",
        "One incident: its cost, the evidence, what to do, and the traces of its steps.",
        "now-1h",
    )
    _choose(board)
    board.annotate(incidents_marked(*_IT))
    _first_row(board)
    _evidence(board)
    _diagnosis(board)
    _traces(board)
    return board


def _choose(board: Board) -> None:
    """Each choice is among what the ones before it leave."""
    known: list[str] = []
    for name, title, label in (
        ("instance", "Instance", names.INSTANCE),
        ("kind", "Kind", names.KIND),
        ("component", "Component", names.COMPONENT),
        ("rank", "Rank", names.RANK),
    ):
        board.choose(
            choice(
                name,
                title,
                f"{title} of the incident, of those in the time range at the top right.",
                selected(names.IMPACT, *known),
                label,
                several=False,
            )
        )
        known.append(equals(label, f"${name}"))
    board.choose(
        typed("price", "$ per GPU hour", "What an hour of one GPU costs you.", "2.50"),
        typed("trace", "Trace", "Trace shown at the bottom: a click in the list sets it.", ""),
    )


def _first_row(board: Board) -> None:
    caused = f"sum(increase({selected(names.CAUSED, _INSTANCE, _RANK)}[{_RANGE}]))"
    board.row(
        "",
        6,
        Placed(
            3,
            figure(
                "State",
                "PAGE: it costs enough and has lasted; seen: a finding below that, or silenced; "
                "over: it is resolved, or not of this time.",
                now(
                    f"max({selected(names.IMPACT, *_IT, equals(names.PAGE, 'true'))} > bool -1) "
                    f"or max({_IMPACT} > bool -1) - 1 or vector(-1)"
                ),
                "none",
                ((None, CALM), (0, "orange"), (1, ALARM)),
                filled=True,
            ).mappings(
                mapped({"1": ("PAGE", ALARM), "0": ("seen", "orange"), "-1": ("over", CALM)})
            ),
        ),
        Placed(
            3,
            figure(
                "Costs each step",
                "What a step would save with the cause gone, found by replaying it; the last "
                "that was told in this time range.",
                now(f"max(last_over_time({_IMPACT}[{_RANGE}]))"),
                "s",
                ((None, ALARM),),
            ),
        ),
        Placed(
            3,
            figure(
                "At work for",
                "How long it was at work in this time range.",
                now(f"15 * count_over_time(max({_IMPACT})[{_RANGE}:15s])"),
                "s",
                ((None, "text"),),
            ),
        ),
        Placed(
            3,
            figure(
                "Lost because of this rank",
                "GPU time that all ranks lost because of this one in this time range, by all its "
                "incidents, in money.",
                now(f"{caused} / 3600 * $price"),
                "currencyUSD",
                ((None, "text"),),
            ).decimals(2),
        ),
        Placed(12, _place()),
    )


def _place() -> Table:
    return rows(
        "Where it is",
        "Which GPU, host, rack and switch the rank is on. Rack and switch are empty unless the "
        "workers' resource says kat.rack and kat.switch.",
        [now(selected(names.INFO, _INSTANCE, _RANK))],
        [
            Column(names.RANK, "Rank", width=110, words=RANK_WORDS),
            Column(names.HOST, "Host"),
            Column(names.GPU, "GPU"),
            Column(names.RACK, "Rack", width=110),
            Column(names.SWITCH, "Switch", width=110),
        ],
    ).no_value("Nobody said who this rank is.")


def _evidence(board: Board) -> None:
    board.row(
        "Evidence",
        9,
        Placed(
            8,
            lines(
                "Costs each step",
                "When it began, how much it costs, and whether it is over. Shaded: it pages.",
                [curve(f"max({_IMPACT})", "this incident")],
                "s",
            ),
        ),
        Placed(
            8,
            lines(
                "Lateness at collectives",
                "How much later than the first rank it comes, the median over a step's "
                "collectives. Above the others: late all along. Not above them: late once a step, "
                "or slow beside them; look at the parts. Known of steps that came whole.",
                [
                    curve(_lateness(_RANK), "rank $rank"),
                    curve(_lateness(_OTHERS), "mean of the others"),
                ],
                "s",
            ),
        ),
        Placed(8, _parts()),
    )


def _lateness(who: str) -> str:
    total, count = (selected(f"{names.SKEW}_{end}", _INSTANCE, who) for end in ("sum", "count"))
    return f"sum({rate(total)}) / sum({rate(count)})"


def _parts() -> Table:
    """Time of a step by part, of this rank and of the others, over the whole time range."""
    step = mean(names.STEP, _INSTANCE, window=_RANGE)
    own, others = (
        f"increase({selected(names.PARTS, _INSTANCE, who)}[{_RANGE}])" for who in (_RANK, _OTHERS)
    )
    this, that = (
        f"sum by ({names.PART}) ({one}) / scalar(sum({one})) * {step}" for one in (own, others)
    )
    return rows(
        "Where its step time goes",
        "More compute than the others: its kernels are slow, or it has more to do. More host: its "
        "work is launched late. The others wait more instead.",
        [now(this), now(that), now(f"({this}) - ({that})")],
        [
            Column(names.PART, "Part"),
            Column("Value #A", "Rank $rank", unit="s", width=110),
            Column("Value #B", "The others", unit="s", width=110),
            Column(
                "Value #C",
                "More",
                unit="s",
                width=110,
                steps=((None, "text"), (0.0001, "orange"), (0.001, ALARM)),
            ),
        ],
    )


def _diagnosis(board: Board) -> None:
    # A label that is shown in two columns must be there twice.
    said = f"group by ({names.KIND}, {names.COMPONENT}) (last_over_time({_IMPACT}[{_RANGE}]))"
    meant = f'label_replace({said}, "meaning", "$1", "{names.KIND}", "(.*)")'
    told = f'label_replace({meant}, "next", "$1", "{names.COMPONENT}", "(.*)")'
    board.row(
        "Diagnosis",
        6,
        Placed(
            16,
            rows(
                "What it means, and what to do first",
                "What is known of the kind and the component in general. What was found out about "
                "this incident stands on its trace: event kat.diagnosis of the culprit's span. "
                f"{KINDS}.",
                [now(told)],
                [
                    Column("meaning", "Meaning", words=_plain(KIND_MEANING)),
                    Column(names.COMPONENT, "Component", width=120),
                    Column(
                        "next",
                        "Do first",
                        words=_plain({one: usual_step(one) for one in get_args(Component)}),
                    ),
                ],
            ).no_value("No such incident in this time range."),
        ),
        Placed(
            8,
            note(
                "On the trace",
                "Look for the spans with `kat.role` = `culprit`. Their event `kat.incident` holds "
                "the verdict (`kat.summary`) and all evidence (`kat.report`), `kat.diagnosis` the "
                "cause, how sure it is and what to do (`kat.action`).\n\n"
                "Was it right? The incident's id is `kat.incident.id`:\n\n"
                "```\nkat feedback ID --true\nkat silence ID --for 2h --reason TICKET\n```\n",
            ),
        ),
    )


def _plain(words: Mapping[Kind, str] | Mapping[Component, str]) -> dict[str, tuple[str, str]]:
    return {name: (word, "text") for name, word in words.items()}


def _traces(board: Board) -> None:
    tags = {
        semconv.INSTANCE_ID: "$instance",
        semconv.KIND: "$kind",
        semconv.COMPONENT: "$component",
    }
    board.row(
        "Traces of its steps",
        18,
        Placed(
            8,
            found(
                "Steps with this incident, in Jaeger",
                "A click shows the trace beside it. The first steps hold the whole report.",
                JaegerSearch(tags),
                [to_trace()],
            ),
        ),
        Placed(
            16,
            trace(
                "The step",
                "Rank by rank. Red: an incident that pages. Waiting ranks show long collectives, "
                "the culprit short ones.",
                JaegerTrace("$trace"),
            ),
        ),
    )
