"""What is said of a step that could not be judged, or not in full."""

from __future__ import annotations

from typing import Final

import numpy as np

from kat_otel.processor.assembler import AssembledStep
from kat_otel.verdict import Abstention, Clock, Coverage, Report, Source

__all__ = ["FAILED", "completeness", "unjudged"]

FAILED: Final = "internal error"
"""Reason of an abstention that is a defect of ours."""


def unjudged(step: AssembledStep, error: Exception) -> Report:
    """Returns the report of a step that the judge failed on: no incidents, and why."""
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
