"""Puts a step together from the batches of its ranks, and keeps the steps of an instance in order.

A step is complete when every rank of its group has closed it: its worker step span is here,
and as many of its spans as that span's ``kat.span.count`` says (itself included). What is not
complete after ``decision_wait`` is judged as it is, with the missing ranks named. No thread and
no clock live here: whoever calls says what time it is.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kat_otel.config import AssemblerConfig
from kat_otel.processor.assembled import Arrivals, AssembledStep, Ending, LateSpans, StepRecord
from kat_otel.processor.defects import Defects
from kat_otel.processor.digest_spans import DigestSpan, digests_in
from kat_otel.processor.ids import merge_ids
from kat_otel.processor.pending import Ids, Pending
from kat_otel.processor.split import StepKey, split_by_step
from kat_otel.processor.turns import Run, Turns
from kat_otel.spans import UNKNOWN, SpanTable
from kat_otel.telemetry import Books

__all__ = ["Assembler"]

_MAX_REMEMBERED = 8_000_000
"""Span ids of judged steps that are remembered: 64 MB."""

_MAX_LOOSE = 1 << 19
"""Spans that came last and are kept in the batches they came in: most are judged soon, and need
not be copied. What waits for longer is folded into less memory."""

_MAX_OF_RECORD = 1_000_000
"""Ids up to which late spans are added to a step's; those of later ones are not remembered."""

_COST_OF_RANK = 16
"""What a rank of a record takes beside its ids, in ids."""

_NO_IDS: Ids = np.empty(0, np.uint64)


def _count(record: StepRecord) -> int:
    return sum(map(len, record.ids.values())) + _COST_OF_RANK * len(record.ids)


def _among(ids: Ids, seen: Ids) -> NDArray[np.bool_]:
    """Returns which ids are among those of a sorted list."""
    if len(seen) == 0:
        return np.zeros(len(ids), np.bool_)
    at = np.minimum(np.searchsorted(seen, ids), len(seen) - 1)
    return seen[at] == ids


class Assembler:
    """Steps under assembly, of all instances, within the limits of its settings."""

    def __init__(self, config: AssemblerConfig, defects: Defects | None = None) -> None:
        self._config = config
        self._defects = defects or Defects(Books())
        self._instances: OrderedDict[str, Turns] = OrderedDict()
        self._forced: list[AssembledStep] = []
        self._loose: deque[tuple[int, list[tuple[Pending, int]]]] = deque()  # spans and parts
        self._loose_spans = 0
        self._steps = self._spans = self._size = 0
        self._remembered = 0
        self._order: deque[StepKey] = deque()  # judged steps, as their ids were remembered
        self._due: list[tuple[float, int, Run]] = []  # a heap, with entries that are out of date
        self._count = 0
        self._receipt = 0  # of the batch that is being taken
        self._parts: list[tuple[Pending, int]] = []  # of it: where its spans wait
        self.forgotten: list[str] = []
        """Instances forgotten since the caller last emptied this list."""

    def add(self, table: SpanTable, now: float, receipt: int = 0) -> Arrivals:
        """Takes the spans of one batch; returns what of it does not wait.

        Args:
            table: the spans.
            now: when they came, monotonic seconds.
            receipt: number of the batch, handed back with every step that holds spans of it.
        """
        arrivals = Arrivals()
        self._receipt = receipt
        split = self._defects.guard(
            lambda: _parted(table), "batches failed", "the spans leave as they came"
        )
        if split is None:
            arrivals.poison.append(table)
            return arrivals
        digests, foreign, parts = split
        self._parts = []
        self._add_digests(digests, now, arrivals)
        if len(foreign):
            arrivals.foreign.append(foreign)
        for key, rank, spans in parts:
            add = partial(self._add_rank, key, rank, spans, now, arrivals)
            what = f"instance {key.instance or '?'}: {len(spans)} spans leave as they came"
            if self._defects.guard(add, "batches failed", what) is None:
                arrivals.poison.append(spans)
        self._fold_older(len(table))
        self._keep_limits()
        return arrivals

    def _add_digests(self, digests: Sequence[DigestSpan], now: float, arrivals: Arrivals) -> None:
        """Takes spans that are a rank's step each: most go straight to their step."""
        touched: dict[tuple[str, int], Turns] = {}
        for span in digests:
            name, high, _ = span.key
            instance = touched.get((name, high))
            if instance is None:
                instance = touched[name, high] = self._instance(name)
            add = partial(self._add_digest, instance, span, now, arrivals)
            what = f"instance {name or '?'}: a digest leaves as it came"
            if self._defects.guard(add, "batches failed", what) is None:
                arrivals.poison.append(span.taken())
        for (_, high), instance in touched.items():
            if high in instance.waiting:
                self._schedule(instance.waiting[high])

    def _add_digest(
        self, instance: Turns, span: DigestSpan, now: float, arrivals: Arrivals
    ) -> Literal[True]:
        key = span.key
        pending = instance.pending.get(key)
        new = pending is None and key not in instance.records
        if new:
            pending = self._begin(instance, key, span.number, now)
        before = pending and pending.digests.get(span.rank)
        if before and before.span_id == span.span_id:
            arrivals.repeated += 1
            return True
        if pending is None or pending.knows(span.rank) or pending.number != span.number:
            # late, repeated, or out of order
            return self._add_rank(key, span.rank, span.taken(), now, arrivals)
        pending.add_digest(span, now)
        if new:
            self._take_up(instance, pending)
        self._spans += 1
        self._size += span.nbytes
        self._claim(pending, arrivals)
        return True

    def _instance(self, name: str) -> Turns:
        instance = self._instances.setdefault(name, Turns())
        self._instances.move_to_end(name)
        return instance

    def _begin(self, instance: Turns, key: StepKey, number: int, now: float) -> Pending | None:
        """Returns a step that nothing came of before; None if its turn has passed."""
        if instance.run(key).has_passed(number):
            return None
        return Pending(key, now, number=number)

    def _take_up(self, instance: Turns, pending: Pending) -> None:
        self._steps += 1
        self._count += 1
        instance.put(pending, self._count)

    def _claim(self, pending: Pending, arrivals: Arrivals) -> None:
        if self._receipt not in pending.receipts:
            pending.receipts[self._receipt] = None
            arrivals.waiting += 1

    def _add_rank(
        self, key: StepKey, rank: int, spans: SpanTable, now: float, arrivals: Arrivals
    ) -> Literal[True]:
        """Takes the spans of one rank; if that fails, as if they had not come."""
        instance = self._instance(key.instance)
        record = instance.records.get(key)
        number = int(spans.step.max())
        pending = instance.pending.get(key)
        if record is not None:
            seen = record.ids.get(rank, _NO_IDS)
            new = ~_among(spans.span_id, seen)
            arrivals.repeated += int(np.count_nonzero(~new))
            if np.any(new):
                late = spans.take(new)
                self._add_late(record, rank, late.span_id)
                arrivals.late.append(LateSpans(key.instance, late, record.forwarded_whole))
            return True
        new = pending is None
        pending = self._begin(instance, key, number, now) if pending is None else pending
        if pending is None:  # the detector takes steps in order
            arrivals.late.append(LateSpans(key.instance, spans, forwarded_whole=True))
            return True
        spans_before, size_before = pending.spans, pending.size
        repeated = pending.add(spans, rank, now)  # first: if it fails, nothing has changed
        arrivals.repeated += repeated
        if new:
            self._take_up(instance, pending)
        run = instance.waiting[key.trace_hi]
        if pending.number == UNKNOWN and number != UNKNOWN:
            pending.number = number
            run.put_anew()
        if repeated < len(spans):
            self._claim(pending, arrivals)
        self._spans += pending.spans - spans_before
        self._size += pending.size - size_before
        self._schedule(run)
        if repeated < len(spans):
            self._parts.append((pending, len(pending.tables) - 1))
        if pending.spans > self._config.max_step_spans and not pending.complete:
            self._cut_off(instance, run, pending)
        return True

    def _cut_off(self, instance: Turns, run: Run, pending: Pending) -> None:
        """Judges a step as it is, and before it those whose turn comes before."""
        while pending.key in instance.pending:
            self._forced.append(self._close(run, "limit"))

    def _fold_older(self, spans: int) -> None:
        """Keeps the parts of the batch as they came, and folds those of batches before the last."""
        self._loose.append((spans, self._parts))
        self._loose_spans += spans
        while self._loose_spans > _MAX_LOOSE:
            spans, parts = self._loose.popleft()
            self._loose_spans -= spans
            for pending, number in parts:
                before = pending.size
                fold = partial(pending.fold, number)
                self._defects.guard(fold, "parts not folded", "they take more memory")
                self._size += pending.size - before

    def _schedule(self, run: Run) -> None:
        """Notes when the run's next step is due, if that has changed."""
        deadline = self._deadline(run) if run.queue else math.inf
        if deadline != run.deadline:
            run.deadline = deadline
            if run.queue:
                self._count += 1
                heapq.heappush(self._due, (deadline, self._count, run))

    def _soonest(self) -> Run | None:
        """Returns the run whose step is due next; drops entries that are out of date."""
        while self._due:
            deadline, _, run = self._due[0]
            if run.queue and run.deadline == deadline:
                return run
            heapq.heappop(self._due)
        return None

    def reload(self, config: AssemblerConfig) -> None:
        """Takes new waits and limits; deadlines that are set already stay."""
        self._config = config

    def fill(self) -> tuple[int, int, int, int]:
        """Returns steps, spans and bytes under assembly, and instances; from any thread."""
        return self._steps, self._spans, self._size, len(self._instances)

    def ready(self, now: float) -> Iterator[AssembledStep]:
        """Yields the steps to judge now, in order within each run of an instance.

        One at a time: put together, a step takes its memory twice.
        """
        yield from self._take_forced()
        while (run := self._soonest()) is not None and run.deadline <= now:
            yield self._close(run, "complete" if run.next().complete else "waited")

    def next_deadline(self) -> float:
        """Returns when :meth:`ready` has something without anything arriving; infinity if never."""
        if self._forced:
            return -math.inf
        soonest = self._soonest()
        return math.inf if soonest is None else soonest.deadline

    def flush(self) -> Iterator[AssembledStep]:
        """Yields everything under assembly, at shutdown."""
        yield from self._take_forced()
        for instance in self._instances.values():
            while instance.pending:
                run = instance.oldest()
                yield self._close(run, "complete" if run.next().complete else "shutdown")

    def _take_forced(self) -> list[AssembledStep]:
        steps, self._forced = self._forced, []
        return steps

    def _deadline(self, run: Run) -> float:
        pending = run.next()
        last = pending.first_seen + self._config.decision_wait
        in_turn = pending.number <= run.judged + 1 and run.judged != UNKNOWN
        patience = 0.0 if in_turn or pending.number <= 0 else self._config.order_wait
        return min(last, pending.complete_since + patience)

    @property
    def crowded(self) -> bool:
        """Whether more than there is room for is under assembly; from any thread."""
        limits = self._config
        return (
            self._steps > limits.max_pending_steps
            or self._spans > limits.max_pending_spans
            or self._size > limits.max_pending_mib * 2**20
        )

    def _keep_limits(self) -> None:
        limits = self._config
        while limits.over_limit == "judge_early" and self.crowded:
            waiting = (i.oldest() for i in self._instances.values() if i.pending)
            oldest = min(waiting, key=lambda run: run.next().first_seen)
            self._forced.append(self._close(oldest, "limit"))
        while len(self._instances) > limits.max_instances:
            name, instance = next(iter(self._instances.items()))
            while instance.pending:
                self._forced.append(self._close(instance.oldest(), "limit"))
            del self._instances[name]
            for record in instance.records.values():
                self._forget(record)
            self.forgotten.append(name)

    def _remember(self, key: StepKey, record: StepRecord) -> None:
        """Keeps the ids of the last steps, of all instances together not more than there is room.

        A step that is forgotten is one whose turn has passed: its spans are forwarded if they
        come again, with the same ids.
        """
        self._remembered += _count(record)
        self._order.append(key)
        self._trim()

    def _add_late(self, record: StepRecord, rank: int, ids: Ids) -> None:
        before = _count(record)
        if before + len(ids) + _COST_OF_RANK > _MAX_OF_RECORD:
            return
        record.ids[rank] = merge_ids(record.ids.get(rank, _NO_IDS), np.sort(ids))[0]
        self._remembered += _count(record) - before
        self._trim()

    def _trim(self) -> None:
        while self._remembered > _MAX_REMEMBERED and len(self._order) > 1:
            oldest = self._order.popleft()
            instance = self._instances.get(oldest.instance)
            gone = instance.records.pop(oldest, None) if instance else None
            if gone is not None:
                self._forget(gone)
        while len(self._order) > self._config.remembered_steps * self._config.max_instances + 1:
            self._order.popleft()

    def _forget(self, record: StepRecord) -> None:
        self._remembered -= _count(record)

    def _close(self, run: Run, ending: Ending) -> AssembledStep:
        """Takes the next step of a run, to be judged: it is always the first that is closed."""
        instance = self._instances[run.next().key.instance]
        pending = instance.pop(run)
        self._steps -= 1
        self._spans -= pending.spans
        self._size -= pending.size
        run.note(pending.number)
        self._schedule(run)
        record = StepRecord(pending.ids())
        instance.records[pending.key] = record
        self._remember(pending.key, record)
        while len(instance.records) > self._config.remembered_steps:
            self._forget(instance.records.popitem(last=False)[1])
        whole = self._defects.guard(
            lambda: pending.digest_spans() or pending.whole(),
            "steps failed",
            f"instance {pending.key.instance or '?'}, step {pending.number}: not put together",
        )
        parts = pending.parts() if whole is None else ()
        pending.tables = []  # who folds what waits still has the step
        return AssembledStep(
            instance=pending.key.instance,
            step=pending.number,
            spans=SpanTable.empty() if whole is None else whole,
            ending=ending,
            missing_ranks=() if pending.complete else pending.missing_ranks(),
            missing_count=pending.wanted - pending.closed if pending.wanted else UNKNOWN,
            receipts=tuple(pending.receipts),
            record=record,
            first_seen=pending.first_seen,
            last_seen=pending.last_seen,
            parts=tuple(parts),
            trace=(pending.key.trace_hi, pending.key.trace_lo),
        )


def _parted(
    table: SpanTable,
) -> tuple[list[DigestSpan], SpanTable, list[tuple[StepKey, int, SpanTable]]]:
    """Returns a batch's digests that are all of a rank's step, spans of no rank, and the others."""
    digests, others = digests_in(table)
    foreign, parts = split_by_step(others) if len(others) else (others, [])
    return digests, foreign, parts
