"""From what departs in a step's digests to the report's incidents: one cause, one culprit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import family
from kat_otel.spans import SpanTable
from kat_otel.ttad.components import candidates
from kat_otel.ttad.digest_batch import DigestBatch
from kat_otel.ttad.digest_history import (
    BEGIN,
    CLASSES,
    COPY,
    SLOW,
    WAITED,
    DigestHistory,
    Flags,
    Measured,
    host_share,
)
from kat_otel.ttad.digest_lateness import LATE, START, WORST, WORST_AT
from kat_otel.ttad.evidence import duration_text
from kat_otel.verdict import Culprit, Evidence, Incident, Kind, Scope, SpanRef
from kat_otel.wording import ranks_text

__all__ = ["Judged", "incidents_of"]

_MOST_CLASSES = 5
_SLOWER = 0.02
_EXPLAINS = 0.5
"""Work that is slower explains a lateness if it makes up this share of it."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One step of one group of peers: ``ranks`` and spans ``rows`` by column, what departs."""

    table: SpanTable
    rows: NDArray[np.int64]
    ranks: Sequence[int]
    batch: DigestBatch
    measured: Measured
    flags: Flags
    history: DigestHistory
    names: Mapping[int, str]

    def rank(self, column: int) -> int:
        """Returns the rank of a column."""
        return self.ranks[column]

    def name(self, kind: int) -> str:
        """Returns the name of a kernel class as far as it was sent."""
        number = int(self.history.classes[kind])
        return self.names.get(number) or (f"class {number:08x}" if number else "other kernels")


def incidents_of(judged: Judged) -> list[Incident]:
    """Returns the incidents of the batch's first (only) step."""
    flagged = judged.flags.features[0]
    found = [_of_rank(judged, int(c)) for c in np.flatnonzero(flagged.any(axis=1))]
    if not judged.measured.sided:
        unsure = [i for i in found if i.kind in ("slow_rank", "slow_kernel")]
        found = [i for i in found if i not in unsure]
        if unsure:
            found.append(_both(judged, max(unsure, key=lambda i: i.score)))
    if not found and judged.flags.transfer[0]:
        found.append(_of_group(judged, "slow_transfer"))
    elif not found and judged.flags.regression[0]:
        found.append(_of_group(judged, "regression"))
    return found


class _Facts:
    def __init__(self) -> None:
        self.all: list[Evidence] = []

    def add(self, text: str, signal: str, value: float, expected: float, unit: str) -> None:
        self.all.append(
            Evidence(
                id=f"E{len(self.all) + 1}",
                text=text,
                signal=signal,
                value=float(value),  # msgspec knows no NumPy numbers
                expected=float(expected),
                unit=unit,
            )
        )


def _of_rank(judged: Judged, column: int) -> Incident:
    measured, flags = judged.measured, judged.flags.features[0, column]
    features, late = measured.features[0, column], measured.late[0, column]
    waited = float(late[LATE] + late[START])
    usual = judged.history.usual_features
    usually = 0.0 if usual is None else float(usual[column, [WAITED, BEGIN]].sum())
    excess = np.maximum(measured.excess[0, column], 0.0)
    is_late = bool(flags[WAITED] or flags[BEGIN])
    classes = [int(k) for k in np.argsort(-excess, kind="stable")[:_MOST_CLASSES]]
    if is_late:
        kind = _kind_of_lateness(judged, column, waited)
    elif flags[SLOW]:
        kind = "slow_rank"
    else:
        kind = "slow_copy" if flags[COPY] else "slow_kernel"
    facts, who = _Facts(), ranks_text([judged.rank(column)])
    if is_late:
        _lateness_facts(facts, judged, column, who)
    if flags[SLOW] or kind == "slow_rank":
        _slow_fact(facts, features[SLOW], who)
    if kind in ("slow_rank", "slow_kernel"):
        slower = [k for k in classes if excess[k] >= 0.1 * excess[classes[0]] and excess[k] > 0]
        if flags[CLASSES:].any() and kind == "slow_kernel":
            slower = [k for k in classes if flags[CLASSES + k]] or slower
        _class_facts(facts, judged, column, slower)
        # Of a slow rank all slower classes say what they have in common, not the largest alone.
        alike = np.flatnonzero(excess >= _SLOWER * measured.expected[0, column])
        kernels = [judged.name(int(k)) for k in (alike if kind == "slow_rank" else slower)]
    else:
        kernels = []
    if kind == "slow_copy":
        took = float(features[COPY] * measured.length[0])
        text = f"copies of {who} take {duration_text(took)} more than those of its peers"
        facts.add(text, "copy_time", took, 0.0, "ns")
    others = [judged.rank(c) for c in range(len(judged.rows)) if c != column]
    return _incident(
        judged,
        kind=kind,
        scope="kernel" if kind in ("slow_kernel", "slow_copy") else "rank",
        columns=[column],
        sure=True,
        victims=others if is_late else [],
        kernels=kernels,
        impact_ns=max(waited - usually * float(measured.length[0]), 0.0) if is_late else 0.0,
        score=judged.history.score(features, column, flags),
        evidence=facts.all,
    )


def _kind_of_lateness(judged: Judged, column: int, waited: float) -> Kind:
    measured, flags = judged.measured, judged.flags.features[0, column]
    excess = np.maximum(measured.excess[0, column], 0.0)
    if flags[SLOW]:
        return "slow_rank"
    if float(excess.sum()) >= _EXPLAINS * waited:
        return "slow_kernel"
    if measured.features[0, column, COPY] * measured.length[0] >= _EXPLAINS * waited:
        return "slow_copy"
    return "late_launch" if host_share(measured, 0, column) >= _EXPLAINS else "stall"


def _lateness_facts(facts: _Facts, judged: Judged, column: int, who: str) -> None:
    late = judged.measured.late[0, column]
    waited = float(late[LATE] + late[START])
    facts.add(
        f"the others wait {duration_text(waited)} for {who} in this step",
        "wait",
        waited,
        0.0,
        "ns",
    )
    if late[START] >= _EXPLAINS * waited:
        facts.add(
            f"{who} begins the step {duration_text(float(late[START]))} after the others",
            "begin",
            float(late[START]),
            0.0,
            "ns",
        )
        return
    at = int(late[WORST_AT])
    facts.add(
        f"the longest wait, {duration_text(float(late[WORST]))}, is at collective no. {at + 1} of "
        f"{judged.batch.ends.shape[2]}",
        "arrival_excess",
        float(late[WORST]),
        0.0,
        "ns",
    )
    share = host_share(judged.measured, 0, column)
    if share >= _EXPLAINS:
        facts.add(
            f"{100 * share:.0f} % of it was launched late: there the GPU of {who} had nothing "
            "queued",
            "launch_lead",
            share,
            0.0,
            "1",
        )
        header = judged.batch.header[0, column]
        facts.add(
            f"the longest pause between two launches of {who} is "
            f"{duration_text(float(header['gap_max_ns']))}, after {int(header['gap_at'])} "
            "collectives",
            "launch_gap",
            float(header["gap_max_ns"]),
            float(np.median(judged.batch.header["gap_max_ns"][0])),
            "ns",
        )


def _slow_fact(facts: _Facts, share: float, who: str) -> None:
    text = f"kernel time of {who} is {100 * share:+.1f} % against its peers"
    facts.add(text, "kernel_time", 100 * share, 0.0, "%")


def _class_facts(facts: _Facts, judged: Judged, column: int, classes: list[int]) -> None:
    for kind in classes:
        expected = float(judged.measured.expected[0, column, kind])
        took = expected + float(judged.measured.excess[0, column, kind])
        facts.add(
            f"{judged.name(kind)} takes {duration_text(took)} in this step on rank "
            f"{judged.rank(column)}, expected {duration_text(expected)}",
            "kernel_class_time",
            took,
            expected,
            "ns",
        )


def _both(judged: Judged, likeliest: Incident) -> Incident:
    """Two ranks differ and no history says which is usual: both are named, neither is sure."""
    facts = _Facts()
    facts.all = list(likeliest.evidence)
    text = "the two sides differ and no history says which of them is usual"
    facts.add(text, "side_unknown", 0.0, 0.0, "1")
    return _incident(
        judged,
        kind=likeliest.kind,
        scope=likeliest.scope,
        columns=list(range(len(judged.rows))),
        sure=False,
        victims=[],
        kernels=[],
        impact_ns=float(likeliest.impact_ns),
        score=likeliest.score,
        evidence=facts.all,
    )


def _of_group(judged: Judged, kind: Kind) -> Incident:
    facts, measured = _Facts(), judged.measured
    ranks = ranks_text([judged.rank(c) for c in range(len(judged.rows))])
    if kind == "slow_transfer":
        took, usual = float(measured.transfer[0]), judged.history.usual_transfer
        text = (
            f"transfers of the collectives of {ranks} take {duration_text(took)} in all, usually "
            f"{duration_text(usual)}, alike on all ranks"
        )
    else:
        took = float(np.median(judged.batch.time[0].sum(axis=1)))
        usual = float(np.median(judged.history.usual_time.sum(axis=1)))
        text = (
            f"kernels of {ranks} take {duration_text(took)} in all, usually "
            f"{duration_text(usual)}, alike on all ranks"
        )
    facts.add(text, kind, took, usual, "ns")
    everyone = list(range(len(judged.rows)))
    hosts = {judged.table.resources[int(judged.table.resource[r])].host for r in judged.rows}
    return _incident(
        judged,
        kind=kind,
        scope="instance" if kind == "regression" else "group",
        columns=[],
        sure=True,
        victims=[judged.rank(c) for c in everyone],
        kernels=[],
        impact_ns=max(took - usual, 0.0),
        score=(took / max(usual, 1.0) - 1) / 0.02,
        evidence=facts.all,
        hosts=len(hosts - {""}),
    )


def _incident(
    judged: Judged,
    *,
    kind: Kind,
    scope: Scope,
    columns: list[int],
    sure: bool,
    victims: list[int],
    kernels: list[str],
    impact_ns: float,
    score: float,
    evidence: list[Evidence],
    hosts: int = 1,
) -> Incident:
    table, rows = judged.table, judged.rows
    mine = [table.resources[int(table.resource[rows[c]])] for c in columns]
    ranks = [r.rank for r in mine]
    begin, end = int(table.start_ns[rows].min()), int(table.end_ns[rows].max())
    step = int(table.step[rows[0]])
    components = candidates(kind, [family(k) for k in kernels], hosts=hosts)
    return Incident(
        id="",  # the tracker gives it
        status="open",
        first_seen=begin,
        last_seen=end,
        occurrences=1,
        steps=[step],
        page=False,
        kind=kind,
        scope=scope,
        culprit=Culprit(
            ranks=ranks,
            devices=[r.hardware_id or (str(r.device) if r.device >= 0 else "") for r in mine],
            hosts=sorted({r.host for r in mine if r.host}),
            sure=sure,
        ),
        victims=victims,
        group=None,
        link=None,
        component=components[0].component,
        component_candidates=components,
        component_confidence=components[0].probability,
        impact_ns=round(impact_ns),
        score=round(score, 2),
        false_alarm_probability=judged.history.false_alarm_rate,
        spans=[_span(judged, c) for c in columns],
        evidence=evidence,
    )


def _span(judged: Judged, column: int) -> SpanRef:
    table, row = judged.table, int(judged.rows[column])
    return SpanRef(
        rank=judged.rank(column),
        stream=None,
        name=table.name_of(row),
        start_unix_nano=int(table.start_ns[row]),
        duration_ns=int(table.duration_ns[row]),
        expected_ns=None,
        trace_id=f"{int(table.trace_hi[row]):016x}{int(table.trace_lo[row]):016x}",
        span_id=f"{int(table.span_id[row]):016x}",
    )
