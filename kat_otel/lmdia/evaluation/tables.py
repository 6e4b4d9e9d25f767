"""The benchmark's figures as Markdown: rows of cases pooled, each share with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from kat_otel.lmdia.dataset.plan import PROMISED
from kat_otel.lmdia.scoring.figures import Figures, Share, figures
from kat_otel.lmdia.scoring.match import Outcome

__all__ = [
    "by_delay",
    "by_method",
    "by_part",
    "by_scenario",
    "by_severity",
    "headline",
    "markdown",
    "promised",
]

Rows = Mapping[str, Sequence[Outcome]]

_HEAD: Final = (
    "",
    "cases",
    "precision",
    "recall",
    "culprit",
    "component",
    "among 3",
    "retrieved",
    "delay",
    "false pages",
)
_SPANS: Final = "spans"


def promised(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Returns the cases whose faults a detector of steps should find; confounders, healthy ones."""
    return [o for o in outcomes if all(t.severity >= PROMISED for t in o.label.faults)]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def headline(rows: Rows) -> str:
    """Returns a row of all figures for each set of cases."""
    return markdown(_HEAD, [[name, *_cells(figures(found))] for name, found in rows.items()])


def by_scenario(outcomes: Sequence[Outcome]) -> str:
    """Returns a row of all figures for each scenario, faults first."""
    faults = [o for o in outcomes if o.label.part == "fault"]
    names = sorted({o.label.scenario for o in faults})
    return headline({f"`{n}`": [o for o in faults if o.label.scenario == n] for n in names})


def by_part(outcomes: Sequence[Outcome]) -> str:
    """Returns what was said where nothing is sick: alarms by confounder, and of healthy load."""
    quiet = [o for o in outcomes if o.label.part != "fault"]
    names = sorted({o.label.scenario for o in quiet}, key=lambda n: (n == "healthy", n))
    rows: list[list[str]] = []
    for name in names:
        of = [o for o in quiet if o.label.scenario == name]
        steps = sum(len(o.label.steps) for o in of)
        alarms = sum(o.false for o in of)
        rows.append(
            [
                f"`{name}`",
                f"{len(of)}",
                f"{steps}",
                f"{sum(o.allowed for o in of)}",
                f"{alarms}",
                f"{sum(o.false_pages for o in of)}",
                str(Share(sum(o.false > 0 for o in of), len(of))),
            ]
        )
    head = ("", "cases", "steps", "named rightly", "false alarms", "false pages", "cases with one")
    return markdown(head, rows)


def by_method(methods: Rows) -> str:
    """Returns a row a method: precision, recall, F1, culprits, then the recall of each scenario."""
    scenarios = sorted(
        {o.label.scenario for found in methods.values() for o in found if o.label.faults}
    )
    rows: list[list[str]] = []
    for name, found in methods.items():
        pooled = figures(found)
        rows.append(
            [
                name,
                _share(pooled.precision),
                _share(pooled.recall),
                _number(pooled.f1),
                _share(pooled.culprit),
                *(_share(_recall(found, scenario)) for scenario in scenarios),
            ]
        )
    head = ("", "precision", "recall", "F1", "culprit", *(f"`{s}`" for s in scenarios))
    return markdown(head, rows)


def by_severity(methods: Rows) -> str:
    """Returns the recall of each method by severity."""
    steps = severities(found for found in methods.values())
    rows = [
        [name, *(_share(_pooled(found, lambda s, x=x: s == x)) for x in steps)]
        for name, found in methods.items()
    ]
    return markdown(("", *(f"{100 * s:g} %" for s in steps)), rows)


def severities(sets: Iterable[Sequence[Outcome]]) -> list[float]:
    """Returns the severities of all faults, as planned, ascending."""
    return sorted({planned(t.severity) for found in sets for o in found for t in o.label.faults})


def planned(severity: float) -> float:
    """Returns a tuned severity as the plan has it."""
    return round(severity, 2)


def by_delay(outcomes: Sequence[Outcome]) -> str:
    """Returns how soon faults were found: within how many judged steps, of all that lasted."""
    bounds = (0, 1, 2, 5, 20)
    rows: list[list[str]] = []
    for severity in severities([outcomes]):
        faults = [f for o in outcomes for f in o.faults if planned(f.severity) == severity]
        cells = [
            _share(Share(sum(f.delay is not None and f.delay <= b for f in faults), len(faults)))
            for b in bounds
        ]
        rows.append([f"{100 * severity:g} %", f"{len(faults)}", *cells])
    head = ("severity", "faults", "same step", *(f"+{b} steps" for b in bounds[1:]))
    return markdown(head, rows)


def _recall(found: Sequence[Outcome], scenario: str) -> Share:
    faults = [f for o in found if o.label.scenario == scenario for f in o.faults]
    return Share(sum(f.found for f in faults), len(faults))


def _pooled(found: Sequence[Outcome], chosen: Callable[[float], bool]) -> Share:
    faults = [f for o in found for f in o.faults if chosen(planned(f.severity))]
    return Share(sum(f.found for f in faults), len(faults))


def _cells(pooled: Figures) -> list[str]:
    median, worst = pooled.delay
    return [
        f"{pooled.cases}",
        str(pooled.precision),
        str(pooled.recall),
        str(pooled.culprit),
        str(pooled.component),
        str(pooled.among),
        str(pooled.retrieved),
        "-" if math.isnan(median) else f"{median:g} ({worst:g})",
        f"{pooled.false_pages}",
    ]


def _share(share: Share) -> str:
    return f"{share.value:.2f}" if share.count else "-"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
