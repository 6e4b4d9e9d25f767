"""The facts behind a verdict, as numbered sentences that a person reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kat_otel.ttad.groups import GroupChange
from kat_otel.ttad.judged import Judged
from kat_otel.ttad.suspects import Suspect
from kat_otel.verdict import Evidence
from kat_otel.wording import ranks_text

__all__ = ["change_evidence", "duration_text", "suspect_evidence"]

_MAX_KERNELS = 5


def duration_text(ns: float) -> str:
    """Returns a duration as people say it: ``1.2 ms``, ``31 µs``."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size:
            value = ns / size
            return f"{value:.2f} {unit}" if abs(value) < 10 else f"{value:.3g} {unit}"
    return f"{ns:.0f} ns"


class _Numbered:
    def __init__(self) -> None:
        self.facts: list[Evidence] = []

    def add(
        self,
        text: str,
        signal: str,
        value: float | None = None,
        expected: float | None = None,
        unit: str | None = None,
    ) -> None:
        self.facts.append(
            Evidence(
                id=f"E{len(self.facts) + 1}",
                text=text,
                signal=signal,
                value=value,
                expected=expected,
                unit=unit,
            )
        )


def suspect_evidence(suspect: Suspect, judged: Judged) -> list[Evidence]:
    """Returns the facts about a suspect, the weightiest first."""
    facts = _Numbered()
    who = ranks_text(judged.ranks(suspect.columns))
    if suspect.meetings:
        _arrivals(facts, suspect, who, judged)
        _walk(facts, suspect, who)
    if suspect.extra and suspect.meetings:
        facts.add(
            f"{who} ran {suspect.extra} kernels or copies that no peer ran",
            "structure",
            float(suspect.extra),
            0.0,
            "1",
        )
    local = judged.durations.judged[:, suspect.columns].any()
    if local and suspect.kind in ("late_launch", "stall", "slow_rank"):
        share = 100 * suspect.slowdown
        normal = "normal" if abs(share) < 4 else f"{share:+.1f} % against its peers"
        facts.add(
            f"kernel time of {who} is {normal} ({share:+.1f} %)"
            if normal == "normal"
            else f"kernel time of {who} is {normal}",
            "kernel_time",
            share,
            0.0,
            "%",
        )
    if suspect.kind in ("slow_rank", "slow_kernel", "slow_copy"):
        _kernels(facts, suspect, judged)
    if not suspect.sure and len(judged.alignment.ranks) == 1:
        facts.add(
            "no peer was recorded: the comparison is with the rank's own repeated layers",
            "peers_missing",
        )
    elif not suspect.sure:
        facts.add("the two sides differ and no history says which of them is usual", "side_unknown")
    return facts.facts


def _arrivals(facts: _Numbered, suspect: Suspect, who: str, judged: Judged) -> None:
    met, late = judged.meetings, judged.lateness
    at = np.array(suspect.meetings)
    verb = "arrives" if len(suspect.columns) == 1 else "arrive"
    worst = float(np.where(late.counts, late.excess, 0.0)[:, suspect.columns].max())
    facts.add(
        f"{who} {verb} last at {len(at)} of {len(met.node)} collectives "
        f"(no. {_numbers(at + 1)}) and fell behind the peers by up to {duration_text(worst)} "
        "from one collective to the next",
        "arrival_excess",
        worst,
        0.0,
        "ns",
    )
    waits = np.where(
        met.member[at], met.arrival[at].max(axis=1, keepdims=True) - met.arrival[at], 0.0
    )
    victims = waits[:, suspect.victims].sum(axis=0)
    facts.add(
        f"the others wait {duration_text(float(victims.mean()))} each for it in this step",
        "wait",
        float(victims.mean()),
        0.0,
        "ns",
    )


def _numbers(at: NDArray[np.int64]) -> str:
    shown = ", ".join(str(int(i)) for i in at[:8])
    return shown + (", …" if len(at) > 8 else "")


def _walk(facts: _Numbered, suspect: Suspect, who: str) -> None:
    shares = suspect.walk.shares()
    total = sum(max(v, 0.0) for v in shares.values())
    words = {
        "kernels": "kernels that run longer than on the peers",
        "copies": "copies that run longer than on the peers",
        "launch": "launches that come late from the host thread",
        "unexplained": "gaps on the GPU that no record explains",
    }
    for name, value in sorted(shares.items(), key=lambda item: -item[1]):
        if total and value >= 0.05 * total:
            facts.add(
                f"walked back from its late arrivals, {100 * value / total:.0f} % of the "
                f"lateness of {who} ({duration_text(value)}) lies in {words[name]}",
                f"walk_{name}",
                value,
                0.0,
                "ns",
            )


def _kernels(facts: _Numbered, suspect: Suspect, judged: Judged) -> None:
    work, features = judged.durations, judged.features
    for node in suspect.nodes[:_MAX_KERNELS]:
        column = max(suspect.columns, key=lambda c: float(work.excess[node, c]))
        took = float(features.duration[node, column])
        usual = float(work.expected[node, column])
        facts.add(
            f"{judged.family(node)} takes {duration_text(took)} on rank "
            f"{int(judged.alignment.ranks[column])}, expected {duration_text(usual)}",
            "kernel_duration",
            took,
            usual,
            "ns",
        )


def change_evidence(change: GroupChange, judged: Judged) -> list[Evidence]:
    """Returns the facts about a change of a whole group."""
    facts = _Numbered()
    ranks = ranks_text(judged.ranks(change.columns))
    texts = {
        "slow_transfer": f"{len(change.nodes)} transfers of collectives of {ranks} take "
        f"{change.ratio:.2f} times their usual time, alike on all ranks",
        "regression": f"{len(change.nodes)} kernels of {ranks} take {change.ratio:.2f} times "
        "their usual time, alike on all ranks",
        "imbalance": f"{change.group} ({ranks}) takes {change.ratio:.2f} times as long as the "
        "other stages for the same operations, alike on its ranks: its share of the model is "
        "too large, no rank of it is slower than its peers",
    }
    facts.add(texts[change.kind], change.kind, change.ratio, 1.0, "1")
    for node, expected in list(zip(change.nodes, change.expected, strict=True))[:_MAX_KERNELS]:
        facts.add(
            f"{judged.family(node)}: expected {duration_text(expected)}",
            "usual_duration",
            None,
            expected,
            "ns",
        )
    return facts.facts
