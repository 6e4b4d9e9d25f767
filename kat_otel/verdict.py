"""The report object ``kat.report/v1``: what TTAD says, and what every output carries.

``kat analyze --format json`` prints it, the processor's log events and the culprit's
span event carry it, the HTML page draws it. The JSON Schema in
``kat_otel/report/kat.report.v1.schema.json`` is generated from these classes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "NOTHING_UNUSUAL",
    "Abstention",
    "Clock",
    "ComponentCandidate",
    "Coverage",
    "Culprit",
    "Evidence",
    "Incident",
    "Instance",
    "Report",
    "Source",
    "SpanRef",
    "Step",
    "from_json",
    "json_schema",
    "to_json",
]

SCHEMA = "kat.report/v1"

NOTHING_UNUSUAL = "nothing unusual that would speak for"
"""Stands, after a colon, in facts of hardware (``H1``) that were measured and are unremarkable."""

Kind = Literal[
    "slow_kernel",
    "slow_rank",
    "late_launch",
    "slow_transfer",
    "slow_copy",
    "imbalance",
    "stall",
    "structure",
    "regression",
]
Component = Literal[
    "gpu_clock",
    "gpu_power",
    "gpu_compute",
    "hbm",
    "nvlink",
    "pcie",
    "nic",
    "host_cpu",
    "host_memory",
    "storage",
    "software",
    "unknown",
]
Status = Literal["open", "ongoing", "resolved"]
Scope = Literal["kernel", "rank", "device", "host", "link", "group", "instance"]
ClockState = Literal["aligned", "corrected", "unaligned"]


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Instance(_Record, kw_only=True):
    """The running model the spans came from; null for files."""

    id: str
    model: str | None = None
    engine: str | None = None
    parallelism: dict[str, int] | None = None


class Clock(_Record, kw_only=True):
    """Whether ranks can be compared in absolute time, and the largest offset found (ns)."""

    state: ClockState
    max_offset_ns: int


class Source(_Record, kw_only=True):
    """What was read. ``resolution_ns`` is the coarsest clock among the sources."""

    files: list[str]
    ranks: list[int]
    world_size: int | None
    resolution_ns: int
    clock: Clock


class Coverage(_Record, kw_only=True):
    """How much was read, how many kernels found their counterparts, and what was not judged."""

    spans: int
    kernels: int
    aligned: int
    unmatched: int
    notes: list[str]


class Step(_Record, kw_only=True):
    """One step that was judged."""

    step: int
    start_unix_nano: int
    duration_ns: int
    ranks: list[int]


class Culprit(_Record, kw_only=True):
    """Where the lateness began. ``sure`` is false when two sides differ and neither is known."""

    ranks: list[int]
    devices: list[str]
    hosts: list[str]
    sure: bool


class ComponentCandidate(_Record, kw_only=True):
    """A component that explains the incident; probabilities of one incident sum to at most 1."""

    component: Component
    probability: float


class SpanRef(_Record, kw_only=True):
    """A span that the verdict cites; ids are lower-case hex as in OTLP JSON."""

    rank: int
    stream: int | None
    name: str
    start_unix_nano: int
    duration_ns: int
    expected_ns: int | None
    trace_id: str
    span_id: str


class Evidence(_Record, kw_only=True):
    """One fact behind the verdict; ``text`` is the sentence a person reads."""

    id: str
    text: str
    signal: str
    value: float | None
    expected: float | None
    unit: str | None


class Incident(_Record, kw_only=True):
    """One cause over its whole life, however many spans it touches.

    Attributes:
        impact_ns: time per affected step that would be saved with the cause gone (ns).
        score: robust deviation in pooled standard deviations.
        false_alarm_probability: chance of such a deviation without a cause.
        first_seen, last_seen: Unix ns.
    """

    id: str
    status: Status
    first_seen: int
    last_seen: int
    occurrences: int
    steps: list[int]
    page: bool
    kind: Kind
    scope: Scope
    culprit: Culprit
    victims: list[int]
    group: str | None
    link: str | None
    component: Component
    component_candidates: list[ComponentCandidate]
    component_confidence: float
    impact_ns: int
    score: float
    false_alarm_probability: float
    spans: list[SpanRef]
    evidence: list[Evidence]
    diagnosis: dict[str, Any] | None = None


class Abstention(_Record, kw_only=True):
    """Why no verdict was given."""

    reason: str
    detail: str


class Report(_Record, kw_only=True):
    """``kat.report/v1``. Incidents are ordered by impact, the largest first."""

    schema: Literal["kat.report/v1"] = SCHEMA
    instance: Instance | None = None
    source: Source
    coverage: Coverage
    steps: list[Step]
    incidents: list[Incident]
    abstained: Abstention | None = None

    @property
    def active(self) -> list[Incident]:
        """The incidents that go on."""
        return [incident for incident in self.incidents if incident.status != "resolved"]


def to_json(record: Report | Incident, *, indent: int = 0) -> bytes:
    """Returns the record as UTF-8 JSON."""
    raw = msgspec.json.encode(record)
    return msgspec.json.format(raw, indent=indent) if indent else raw


def from_json(data: bytes | str) -> Report:
    """Reads a report back.

    Raises:
        msgspec.ValidationError: the data is not a ``kat.report/v1``; the message names the field.
    """
    return msgspec.json.decode(data, type=Report)


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of :class:`Report`."""
    schema = msgspec.json.schema(Report)
    for record in schema["$defs"].values():  # every field is always written, defaults too
        record["required"] = list(record["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "kat.report.v1.schema.json",
        "title": SCHEMA,
        **schema,
    }
