"""What the assembler hands on: whole steps, and what of a batch does not wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from kat_otel.kernels import classify
from kat_otel.operators import Silence
from kat_otel.processor.digest_spans import DigestSpans
from kat_otel.processor.pending import Ids
from kat_otel.spans import UNKNOWN, SpanTable

__all__ = ["Arrivals", "AssembledStep", "Ending", "LateSpans", "StepRecord"]

Ending = Literal["complete", "waited", "limit", "shutdown"]
"""Why a step is judged now: all of it is here, ``decision_wait`` is over, a limit, the end."""


@dataclass(slots=True)
class StepRecord:
    """What is remembered of a judged step, to know late and repeated spans.

    Attributes:
        ids: span ids seen of each rank, sorted uint64; forgotten before the rest of the record
            where they are many.
        forwarded_whole: set by the pipeline when the step left unreduced.
    """

    ids: dict[int, Ids]
    forwarded_whole: bool = False


@dataclass(slots=True)
class AssembledStep:
    """One step of one instance, ready to be judged.

    Attributes:
        instance: ``kat.instance.id``, ``""`` if the workers name none.
        step: number of the step; ``UNKNOWN`` if the workers said none.
        spans: all its spans, parents linked, repeated spans left out; of digests alone where they
            are. ``table`` has them as a table in any case.
        ending: why it is judged now.
        missing_ranks: ranks that never closed the step, as far as they can be named.
        missing_count: how many did not close it, or UNKNOWN if the group's size was not said.
        receipts: of the batches that brought its spans.
        record: what stays of it in the assembler.
        silenced: what silences its incidents, by their id; set when it is judged.
        trace: its trace id, upper and lower half; None if not known.
        first_seen, last_seen: when its first and last spans came, monotonic seconds.
        parts: its spans as they came, if they could not be put together; ``spans`` is empty then.
    """

    instance: str
    step: int
    spans: SpanTable | DigestSpans
    ending: Ending
    missing_ranks: tuple[int, ...]
    missing_count: int
    receipts: tuple[int, ...]
    record: StepRecord
    first_seen: float = 0.0
    last_seen: float = 0.0
    parts: tuple[SpanTable, ...] = ()
    silenced: Mapping[str, Silence] = field(default_factory=dict[str, Silence])
    trace: tuple[int, int] | None = None
    _named: bool = False

    @property
    def table(self) -> SpanTable:
        """Its spans, the collectives among them marked; few steps' are ever asked for."""
        table = self.unmarked
        if not self._named:
            # Workers may call a collective a kernel: its name tells from here on.
            self.spans = table = classify(table)[0]
            self._named = True
        return table

    @property
    def unmarked(self) -> SpanTable:
        """Its spans as a table, with the kinds that the workers said."""
        if isinstance(self.spans, DigestSpans):
            self.spans = self.spans.table()
        return self.spans

    @property
    def hosts(self) -> dict[int, str]:
        """The host of each rank that sent spans, ``""`` where it names none."""
        if isinstance(self.spans, DigestSpans):
            return self.spans.hosts  # for this no table is made
        return {one.rank: one.host for one in self.spans.resources if one.rank != UNKNOWN}

    def as_they_came(self) -> Sequence[SpanTable]:
        """Returns its spans in as many tables as need be, whatever cannot be done with them."""
        if isinstance(self.spans, DigestSpans):
            return [span.taken() for span in self.spans.spans]
        return self.parts or (self.spans,)

    @property
    def trace_id(self) -> str:
        """The step's trace id, 32 hex digits; ``""`` if it has no spans."""
        if self.trace is not None and len(self.spans):
            return f"{self.trace[0]:016x}{self.trace[1]:016x}"
        if isinstance(self.spans, DigestSpans):
            _, hi, lo = self.spans.spans[0].key
            return f"{hi:016x}{lo:016x}"
        table = self.spans
        return f"{int(table.trace_hi[0]):016x}{int(table.trace_lo[0]):016x}" if len(table) else ""


@dataclass(frozen=True, slots=True)
class LateSpans:
    """Spans that came after their step was judged."""

    instance: str
    table: SpanTable
    forwarded_whole: bool


@dataclass(slots=True)
class Arrivals:
    """What of a batch does not wait for assembly."""

    foreign: list[SpanTable] = field(default_factory=list[SpanTable])
    """Spans of no rank: an engine's request spans, a gateway's; forwarded as they are."""
    late: list[LateSpans] = field(default_factory=list[LateSpans])
    poison: list[SpanTable] = field(default_factory=list[SpanTable])
    """Spans that could not be taken up, for a defect that the log tells."""
    repeated: int = 0
    """Spans seen before: senders deliver at least once."""
    waiting: int = 0
    """Steps under assembly that the batch is the first time needed for."""
