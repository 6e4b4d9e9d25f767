"""Asks an instance's judge, and stays calm when the judge does not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kat_otel.processor.assembled import AssembledStep
from kat_otel.processor.digest_spans import DigestSpans, joined
from kat_otel.processor.judges import Judges
from kat_otel.telemetry import Books
from kat_otel.verdict import Abstention, Clock, Coverage, Instance, Report, Source

__all__ = ["FAILED", "Judging", "completeness"]

FAILED: Final = "internal error"
"""Reason of the abstention where a judge failed."""

logger = logging.getLogger(__name__)


class Judging:
    """Judges steps, whatever happens.

    Args:
        judges: of the instances.
        books: counts the steps whose judge failed.
    """

    def __init__(self, judges: Judges[Any], books: Books) -> None:
        self._judges = judges
        self._books = books

    def judge(self, steps: Sequence[AssembledStep], *, old: bool = False) -> list[Report]:
        """Returns the reports of one step, or of several of an instance with digests alone.

        Args:
            steps: of one instance, in their order.
            old: they were found in the log of a former process.
        """
        parts = [step.spans for step in steps if isinstance(step.spans, DigestSpans)]
        if parts:
            return self._together(steps, parts, old=old)
        return [self._alone(step, old=old) for step in steps]

    def _alone(self, step: AssembledStep, *, old: bool) -> Report:
        try:
            report = self._judges.of(step.instance, back=old).judge(step.unmarked)
        except Exception as error:
            # One step that the judge cannot stomach must not stop the fleet's eyes. It leaves
            # unjudged and says so, and the judge, whose state may be half changed, starts anew.
            logger.exception("instance %s, step %d: judging failed", step.instance, step.step)
            self._books.mark("steps failed")
            self._judges.dismiss(step.instance)
            report = _unjudged(step, error)
        return _completed(report, step)

    def _together(
        self, steps: Sequence[AssembledStep], parts: Sequence[DigestSpans], *, old: bool
    ) -> list[Report]:
        """Judges steps together, or, should that fail, one by one: a bad one fails alone."""
        instance = steps[0].instance
        try:
            reports = self._judges.of(instance, back=old).judge_steps(*joined(parts))
            return [_completed(*pair) for pair in zip(reports, steps, strict=True)]
        except Exception:
            first, last = steps[0].step, steps[-1].step
            logger.exception(
                "instance %s, steps %d to %d: judging them together failed, they are judged one "
                "by one",
                *(instance, first, last),
            )
            self._books.mark("steps not judged together", len(steps))
            self._judges.dismiss(instance)
        return [self._alone(step, old=old) for step in steps]


def _completed(report: Report, step: AssembledStep) -> Report:
    if report.instance is None and step.instance:
        report.instance = Instance(id=step.instance)
    if step.ending != "complete":
        report.coverage.notes.append(completeness(step))
    return report


def completeness(step: AssembledStep) -> str:
    """Returns what the step lacks, in a sentence; ``""`` if nothing."""
    if step.ending == "complete":
        return ""
    if step.missing_ranks:
        missing = f"ranks {', '.join(map(str, step.missing_ranks[:16]))} did not close the step"
    elif step.missing_count > 0:
        missing = f"{step.missing_count} rank(s) did not close the step"
    else:
        missing = "the workers did not say how many ranks the step has"
    why = {"waited": "after decision_wait", "limit": "early, memory limit", "shutdown": "at stop"}
    return f"judged incomplete ({why[step.ending]}): {missing}"


def _unjudged(step: AssembledStep, error: Exception) -> Report:
    table = step.table
    return Report(
        source=Source(
            files=[],
            ranks=np.unique(table.rank).tolist(),
            world_size=None,
            resolution_ns=max(resource.resolution_ns for resource in table.resources),
            clock=Clock(state="unaligned", max_offset_ns=0),
        ),
        coverage=Coverage(
            spans=len(table),
            kernels=int(np.count_nonzero(table.on_gpu)),
            aligned=0,
            unmatched=0,
            notes=[],
        ),
        steps=[],
        incidents=[],
        abstained=Abstention(reason=FAILED, detail=f"{type(error).__name__}: {error}"),
    )
