"""``docs/benchmark.md``'s figures, made of the records of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from kat_otel.errors import ConfigError
from kat_otel.lmdia.baselines.judgement import Scored, ScoredStep
from kat_otel.lmdia.baselines.threshold import choose, outcomes
from kat_otel.lmdia.dataset.frozen import generator_hash
from kat_otel.lmdia.dataset.play import PERIOD_S
from kat_otel.lmdia.dataset.sources import REAL
from kat_otel.lmdia.evaluation.methods import ABLATIONS, TTAD
from kat_otel.lmdia.evaluation.plots import Curve
from kat_otel.lmdia.evaluation.records import Record
from kat_otel.lmdia.evaluation.tables import (
    by_delay,
    by_method,
    by_part,
    by_scenario,
    by_severity,
    headline,
    promised,
)
from kat_otel.lmdia.label import Label
from kat_otel.lmdia.scoring.figures import upper_rate
from kat_otel.lmdia.scoring.match import Outcome

__all__ = ["Comparison", "compare"]

_MONTH_S: Final = 30 * 24 * 3600
_FACTORS: Final = np.geomspace(0.25, 8.0, 21)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found.

    Attributes:
        text: Markdown.
        methods: outcomes by method on the test split, TTAD first: for plots.
        curves: share of quiet cases with an alarm, by threshold.
    """

    text: str
    methods: Mapping[str, Sequence[Outcome]]
    curves: Mapping[str, Curve]


def compare(records: Sequence[Record]) -> Comparison:
    """Returns the tables.

    Args:
        records: of the test split, and of the validation split if there are opponents: their
            thresholds are chosen there and nowhere else.

    Raises:
        ConfigError: nothing of the test split was judged, or there is nothing to choose by.
    """
    test = [r for r in records if r.case.split == "test" and not r.refused]
    if not test:
        raise ConfigError("no case of the test split was judged: run kat lmdia evaluate first")
    simulated = [r for r in test if not r.case.source.startswith(f"{REAL}.")]
    real = [r for r in test if r.case.source.startswith(f"{REAL}.")]
    refused = [r for r in records if r.case.split == "test" and r.refused]
    methods: dict[str, Sequence[Outcome]] = {TTAD: _ttad(simulated)}
    thresholds, curves, chosen = _opponents(records, simulated)
    methods |= thresholds
    ablated = [r for r in simulated if all(name in r.outcomes for name in ABLATIONS)]
    parts = {name: [r.outcomes[name] for r in ablated] for name in (TTAD, *ABLATIONS)}
    sections = [
        _headline(simulated, real),
        "## By scenario\n\nTTAD on the test split, all severities.\n\n"
        + by_scenario(methods[TTAD]),
        "## Where nothing is sick\n\n" + by_part(_ttad(test)) + "\n" + _false_pages(test),
        "## How soon\n\nShare of all faults of a severity that TTAD found, by judged steps after "
        "the first faulty one; a fault of one step can be found in that step only.\n\n"
        + by_delay(methods[TTAD]),
    ]
    if len(methods) > 1:
        sections += [
            "## Side by side\n\nAll on the same steps of the test split, faults of "
            "5 % and more. Thresholds of the others were chosen on the validation split for the "
            f"best F1 there ({chosen}). They name no component and no kind, and are spared both."
            "\n\n" + by_method({name: promised(found) for name, found in methods.items()}),
            "### Recall by severity\n\n" + by_severity(methods),
        ]
    if ablated:
        tasks = sorted({f"`{r.case.source}`" for r in ablated})
        sections.append(
            "## What each part is worth\n\nTTAD without one of its parts, faults of 5 % and more, "
            f"on the tasks that were judged with ablations: {', '.join(tasks)}.\n\n"
            + headline({name: promised(found) for name, found in parts.items()})
        )
    sections.append(_left_out(refused, len(test)))
    return Comparison("\n".join(sections), methods, curves)


def _ttad(records: Sequence[Record]) -> list[Outcome]:
    return [r.outcomes[TTAD] for r in records]


def _headline(simulated: Sequence[Record], real: Sequence[Record]) -> str:
    pages = [r.pages for r in simulated if r.pages is not None]
    rows = {
        "test tasks, faults of 5 % and more": promised(_ttad(simulated)),
        "the same, pages alone": promised(pages),
        "test tasks, all severities": _ttad(simulated),
    }
    if real:
        rows["real traces, faults of 5 % and more"] = promised(_ttad(real))
        rows["real traces, all severities"] = _ttad(real)
    spans, seconds = sum(r.spans for r in simulated), sum(r.judge_s for r in simulated)
    return (
        "## TTAD\n\nAn incident that costs 2 % of a step counts as an alarm here, paged or not; "
        "what costs less is a finding: told and ranked, never a page.\n\n"
        + headline(rows)
        + f"\n{len(simulated) + len(real)} cases, {spans:,} spans of simulated tasks judged in "
        f"{seconds:.0f} s; {sum(o.findings for o in _ttad([*simulated, *real]))} findings beside "
        f"the alarms. The generator's hash is `{generator_hash()}`.\n"
    )


def _false_pages(records: Sequence[Record]) -> str:
    quiet = [r.outcomes[TTAD] for r in records if r.case.part != "fault"]
    steps = sum(len(o.label.steps) for o in quiet)
    pages = sum(o.false_pages for o in quiet)
    if not steps:
        return ""
    month = _MONTH_S / PERIOD_S
    return (
        f"{pages} false pages in {steps:,} judged steps of healthy load and confounders. With a "
        f"step judged every {PERIOD_S} s that is {pages / steps * month:.1f} in 30 days; by these "
        f"steps alone not more than {upper_rate(pages, steps / month):.0f} can be promised "
        "(95 %).\n"
    )


def _opponents(
    records: Sequence[Record], test: Sequence[Record]
) -> tuple[dict[str, list[Outcome]], dict[str, Curve], str]:
    names = list(dict.fromkeys(name for r in test for name in r.opponents))
    validation = [
        r for r in records if r.case.split == "validation" and not r.refused and r.opponents
    ]
    if names and not validation:
        raise ConfigError(
            "the other methods' thresholds are chosen on the validation split, which was not "
            "judged: run kat lmdia evaluate --split validation with the same --out"
        )
    found: dict[str, list[Outcome]] = {}
    curves: dict[str, Curve] = {}
    said: list[str] = []
    for name in names:
        threshold, f1 = choose([_scored(r, name) for r in validation if name in r.opponents])
        cases = [_scored(r, name) for r in test]
        found[name] = outcomes(cases, threshold)
        said.append(f"{name} {threshold:.3g}: {f1:.2f}")
        quiet = [case for case in cases if case[0].part != "fault"]
        shares = [
            float(np.mean([o.false > 0 for o in outcomes(quiet, threshold * float(f))]))
            for f in _FACTORS
        ]
        curves[name] = _FACTORS.tolist(), shares
    return found, curves, "; ".join(said)


def _scored(record: Record, name: str) -> tuple[Label, Scored]:
    steps = msgspec.json.decode(record.opponents[name], type=tuple[ScoredStep, ...])
    return record.outcomes[TTAD].label, steps


def _left_out(refused: Sequence[Record], judged: int) -> str:
    by: dict[str, int] = {}
    for record in refused:
        by[record.case.scenario] = by.get(record.case.scenario, 0) + 1
    names = ", ".join(f"{name} {count}" for name, count in sorted(by.items()))
    return (
        f"## Left out\n\n{len(refused)} of {judged + len(refused)} planned cases could not be made "
        "as severe as planned, since the step's slack hides the fault"
        + (f": {names}.\n" if names else ".\n")
    )
