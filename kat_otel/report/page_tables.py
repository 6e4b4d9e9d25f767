"""The page's two comparisons: arrivals of ranks at collectives, and kernels against peers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from kat_otel.kernels import family
from kat_otel.report.compare import Comparison, KernelRow
from kat_otel.report.sentences import duration_text
from kat_otel.report.timeline import Role, Timeline
from kat_otel.verdict import Incident, SpanRef
from kat_otel.wording import ranks_text

__all__ = ["kernels_view", "matrix_view", "short_name", "spans_as_kernels"]

_MAX_COLUMNS, _FEW_COLUMNS = 40, 12
"""Collectives shown: those with differences worth a look, but never so few that none is usual."""
_NAMED_COLUMNS = 10
"""With more columns than this only numbers stand above them."""
_VALUED_COLUMNS = 14
"""With more columns than this the cells show colours, and values on request."""
_EQUAL = 0.05
"""Compute of culprit and peers within five percent is called equal."""

_OPERATION = re.compile(
    r"all_?reduce|all_?gather|reduce_?scatter|send_?recv|all_?to_?all|broadcast|dispatch|combine|"
    r"barrier|reduce|send|recv",
    re.IGNORECASE,
)


def short_name(name: str) -> str:
    """Returns what a collective does, ``AllReduce``, or the end of its name."""
    found = _OPERATION.search(name)
    return found.group(0) if found else name.rpartition("::")[2][:14]


def matrix_view(shown: Timeline) -> dict[str, Any] | None:
    """Returns the matrix of arrivals, collectives x ranks; None with nothing to compare."""
    stage = shown.scene.stage
    found = stage.found
    if len(found) == 0 or len(found.ranks) < 2:
        return None
    value = (
        found.late
        if stage.comparable
        else np.where(found.present, -found.excess().astype(float), np.nan)
    )
    known = ~np.isnan(value)
    if not known.any():
        return None
    numbers = np.arange(1, len(found) + 1)
    spread = np.where(known, np.abs(value), 0).max(axis=1)
    by_spread = np.argsort(-spread, kind="stable")[:_MAX_COLUMNS]
    telling = max(_FEW_COLUMNS, int((spread[by_spread] > spread.max() / 50).sum()))
    chosen: list[int] = sorted(by_spread[:telling].tolist())
    peak = float(np.sqrt(spread.max())) or 1.0
    resolution = max(r.resolution_ns for r in stage.table.resources)
    seen = max(2 * resolution, float(spread.max()) / 50)
    unit, scale = ("µs", 1e3) if spread.max() < 950e3 else ("ms", 1e6)
    last = np.where(known, found.start, np.iinfo(np.int64).min).argmax(axis=1)
    roles = {lane.rank: lane.role for lane in shown.lanes}

    def cell(index: int, column: int) -> dict[str, Any]:
        if not known[index, column]:
            return {"tone": "none", "last": False, "heat": 0, "text": "·", "title": "takes no part"}
        late = float(value[index, column])
        if not stage.comparable:
            said = f"{duration_text(-late)} longer than the shortest"
        else:
            said = f"arrives {duration_text(abs(late))} {'late' if late > 0 else 'early'}"
        return {
            "tone": "late" if late > 0 else "early",
            "last": stage.comparable and int(last[index]) == column and late > seen,
            "heat": round(float(np.sqrt(abs(late))) / peak, 3),  # small skews stay visible
            "text": _number(late / scale),
            "title": f"{found.names[index]}: rank {int(found.ranks[column])} {said}",
        }

    rows = [
        {
            "rank": int(rank),
            "culprit": roles.get(int(rank)) == Role.CULPRIT,
            "cells": [cell(index, column) for index in chosen],
        }
        for column, rank in enumerate(found.ranks)
        if int(rank) in roles
    ]
    note = f"{len(found)} collectives of the step"
    if len(chosen) < len(found):
        note += f", shown are the {len(chosen)} with the largest differences"
    return {
        "lead": (
            f"What each rank lost or gained on its peers since the collective before, {unit}: red "
            "falls behind, blue gets ahead. Outlined: who is waited for."
            if stage.comparable
            else f"How much longer each rank was in the collective than the shortest one, {unit}: "
            "blue waits, the pale one came last."
        ),
        "columns": [
            {
                "number": int(numbers[k]),
                "name": short_name(found.names[k]),
                "title": found.names[k],
            }
            for k in chosen
        ],
        "named": len(chosen) <= _NAMED_COLUMNS,
        "valued": len(chosen) <= _VALUED_COLUMNS,
        "rows": rows,
        "min_width": 72 + (32 if len(chosen) <= _VALUED_COLUMNS else 12) * len(chosen),
        "note": note + ".",
    }


def _number(value: float) -> str:
    if abs(value) < 0.05:
        return "0"
    return f"{value:+.1f}" if abs(value) < 9.95 else f"{value:+,.0f}"


def kernels_view(compared: Comparison, incident: Incident, history: str) -> dict[str, Any]:
    """Returns the comparison of kernels, the sum over all first.

    Args:
        compared: the culprit's kernels, the others', and its own before.
        incident: whose culprit it is.
        history: when that was, as in "in the healthy recording".
    """
    rows = (compared.total, *compared.rows)
    biggest = max((_longest(row) for row in compared.rows), default=1.0) or 1.0
    total = compared.total
    relative = total.difference_ns / total.peers_ns if total.peers_ns > 0 else 0.0
    who = ranks_text(incident.culprit.ranks)
    if abs(relative) < _EQUAL:
        lead = (
            f"Equal: {duration_text(total.culprit_ns)} of work on {who}, on the others "
            f"{duration_text(total.peers_ns)}. The kernels are not the cause."
        )
        if incident.kind in {"slow_kernel", "slow_rank"}:
            lead = lead.removesuffix(" The kernels are not the cause.")
    else:
        more = "more" if relative > 0 else "less"
        lead = (
            f"The kernels of {who} take {duration_text(abs(total.difference_ns))} {more} than the "
            f"others' ({abs(relative):.0%})."
        )
    hidden = compared.families - len(compared.rows)
    return {
        "title": "Is it the kernels?",
        "lead": lead,
        "mine": who,
        "theirs": "median of the others",
        "before": "" if total.before_ns is None else f"{who} {history}",
        "rows": [
            _bar(row, biggest, total=row is compared.total, matters=incident.impact_ns / 20)
            for row in rows
        ],
        "note": f"{hidden:,} more kernels differ less." if hidden > 0 else "",
    }


def spans_as_kernels(refs: list[SpanRef]) -> dict[str, Any] | None:
    """Compares the cited spans with their own expected time, where there are no peers."""
    known = [ref for ref in refs if ref.expected_ns is not None][:10]
    if not known:
        return None
    rows = [
        KernelRow(
            f"{family(ref.name)} (rank {ref.rank})", ref.duration_ns, ref.expected_ns or 0, 1, 1
        )
        for ref in known
    ]
    biggest = max(max(row.culprit_ns, row.peers_ns) for row in rows) or 1.0
    return {
        "title": "Against the expected time",
        "lead": "The spans that the verdict cites, and what they were expected to take.",
        "mine": "took",
        "theirs": "expected",
        "before": "",
        "rows": [_bar(row, biggest, total=False, matters=0.0) for row in rows],
        "note": "",
    }


def _bar(row: KernelRow, biggest: float, *, total: bool, matters: float) -> dict[str, Any]:
    """One row of bars; a difference counts as worse if it is a fair part of the incident's cost."""
    difference = row.difference_ns
    sign = "+" if difference > 0 else "\N{MINUS SIGN}" if difference < 0 else "±"
    worse = difference > max(matters, _EQUAL * row.peers_ns)
    counts = f"{row.culprit_count:g} × against {row.peers_count:g} ×"
    # the sum is longer than any single kernel: its bars are drawn to their own scale
    scale = max(_longest(row), 1.0) if total else biggest
    return {
        "total": total,
        "name": row.name,
        "title": f"{row.name}: {counts}",
        "difference": f"{sign}{duration_text(abs(difference))}",
        "tone": "worse" if worse else "",
        "mine": duration_text(row.culprit_ns) if row.culprit_count else "not run",
        "theirs": duration_text(row.peers_ns) if row.peers_count else "not run",
        "mine_width": round(100 * row.culprit_ns / scale, 2),
        "theirs_width": round(100 * row.peers_ns / scale, 2),
        "before": "" if row.before_ns is None else _before_text(row.before_ns),
        "before_width": round(100 * (row.before_ns or 0.0) / scale, 2),
    }


def _longest(row: KernelRow) -> float:
    return max(row.culprit_ns, row.peers_ns, row.before_ns or 0.0)


def _before_text(before_ns: float) -> str:
    return duration_text(before_ns) if before_ns else "not run"
