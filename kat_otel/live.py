"""``kat.live/v1``: what a running processor sees now, for ``kat top`` and the debug page.

Bounded: of more instances, incidents or silences than fit, the numbers are said.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kat_otel.operators import Silence, Verdict
from kat_otel.verdict import Incident

__all__ = [
    "LateRank",
    "LeftOut",
    "Live",
    "LiveCondition",
    "LiveIncident",
    "LiveInstance",
    "read_live",
]


class LiveCondition(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must hold of the processor, and how it stands."""

    name: str
    ok: bool
    detail: str


class LateRank(msgspec.Struct, frozen=True, kw_only=True):
    """How late a rank comes to the collectives of its instance, ns, over the last steps."""

    rank: int
    host: str
    late_ns: int


class LiveInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance, by the last steps that were judged of it (up to 128).

    Attributes:
        instance: ``kat.instance.id``, ``""`` if its workers name none.
        model, engine: as its workers say, or None.
        step: number of the last step.
        step_ns: median duration of its steps, ns.
        last_steps_ns: durations of the last of them, the newest last, ns.
        steps_per_s: by the steps' numbers and begins; None if they do not tell.
        ranks: how many sent spans of the last step.
        world_size: how many there are; None if nobody said.
        hosts: how many.
        missing_ranks: the first 16 that did not close the last step.
        judged_share: of the last steps, which were judged rather than abstained from; 0 to 1.
        aligned_share: of the kernels of the last steps that came whole, which were compared with
            a counterpart; None if none came whole.
        abstained: why the last step was not judged, or None.
        worst_ranks: the latest at collectives first; of ranks whose clocks cannot be compared none.
        judged_unix_nano: when the last step was judged.
    """

    instance: str
    model: str | None
    engine: str | None
    step: int
    step_ns: int
    last_steps_ns: list[int]
    steps_per_s: float | None
    ranks: int
    world_size: int | None
    hosts: int
    missing_ranks: list[int]
    judged_share: float
    aligned_share: float | None
    abstained: str | None
    worst_ranks: list[LateRank]
    judged_unix_nano: int


class LiveIncident(msgspec.Struct, frozen=True, kw_only=True):
    """An incident that is not resolved.

    Attributes:
        sentence: who, what, cost and component in one line.
        page: whether it wakes somebody; a silenced one does not.
        silence: what silences it, or None.
        feedback: what an operator said of it, or None.
        report: the report object without its steps and spans, with the first of its evidence.
    """

    instance: str
    id: str
    sentence: str
    kind: str
    component: str
    page: bool
    occurrences: int
    impact_ns: int
    first_seen_ns: int
    last_seen_ns: int
    silence: Silence | None = None
    feedback: Verdict | None = None
    report: Incident


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """How many more there are."""

    instances: int = 0
    incidents: int = 0
    silences: int = 0


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """All of it at one moment. Incidents: pages first, silenced ones last, then by cost."""

    schema: Literal["kat.live/v1"] = "kat.live/v1"
    version: str
    at_unix_nano: int
    conditions: list[LiveCondition]
    instances: list[LiveInstance]
    incidents: list[LiveIncident]
    silences: list[Silence]
    left_out: LeftOut


def read_live(data: bytes) -> Live:
    """Reads the object back.

    Raises:
        msgspec.MsgspecError: the data is no ``kat.live/v1``.
    """
    return msgspec.json.decode(data, type=Live)
