"""What a method said of a case, in the few words that the scorer compares."""

from __future__ import annotations

import msgspec

from kat_otel.verdict import Component, Kind

__all__ = ["Alarm"]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a method says is wrong, over all the steps in which it says so.

    Attributes:
        steps: numbers of the steps, ascending.
        ranks: who is named, the likeliest first; empty if nobody in particular.
        sure: whether the ranks are said to be the culprits. A method that says "these two differ,
            which of them is unknown" is not.
        share: what it costs, as a share of the step; for methods without a cost their score. Orders
            the alarms of a case: the largest first.
        page: whether it would wake somebody.
        finding: whether it costs too little to wake anybody however long it lasts: told and ranked,
            but no alarm.
        kind: in the words of ``kat.report/v1``; None for methods that tell no kinds.
        candidates: components that traces alone leave, the likeliest first.
        component: with metrics and logs; None for methods that name none.
        spans: ids of spans said to be anomalous, as in the traces.
    """

    steps: tuple[int, ...]
    ranks: tuple[int, ...]
    sure: bool = True
    share: float = 0.0
    page: bool = True
    finding: bool = False
    kind: Kind | None = None
    candidates: tuple[Component, ...] = ()
    component: Component | None = None
    spans: tuple[int, ...] = ()
