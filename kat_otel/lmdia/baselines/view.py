"""One step as the other methods see it: dense arrays of what they compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import Semantics, classify
from kat_otel.spans import SpanTable
from kat_otel.ttad.align import align
from kat_otel.ttad.features import features

__all__ = ["FEATURES", "StepView", "view"]

Float = NDArray[np.float64]

FEATURES = ("step", "kernels", "collectives", "launch delay", "longest kernel", "gaps")
"""Columns of :attr:`StepView.machine`, each the logarithm of nanoseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class StepView:
    """One step of ``R`` ranks.

    Attributes:
        ranks: their numbers ``(R,)``.
        families: names of the kernel families ``(F,)``.
        totals: time that each rank spent in each family, ns ``(F, R)``.
        counts: how many kernels of it there were ``(F, R)``.
        waits: which families are collectives, bool ``(F,)``.
        collectives: duration of each collective on each rank, ns ``(C, R)``; NaN where absent.
        machine: :data:`FEATURES` of each rank ``(R, 6)``.
        length_ns: of the longest worker step.
    """

    ranks: NDArray[np.int32]
    families: tuple[str, ...]
    totals: Float
    counts: Float
    waits: NDArray[np.bool_]
    collectives: Float
    machine: Float
    length_ns: float


def view(table: SpanTable) -> StepView | None:
    """Returns what the methods compare; None of a step without GPU work."""
    table, meaning = classify(table)
    alignment = align(table, meaning)
    if not len(alignment.ranks):
        return None
    measured = features(table, alignment)
    shape = len(alignment.families), len(alignment.ranks)
    duration = np.where(measured.present, measured.duration, 0.0)
    totals, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(totals, alignment.family, duration)
    np.add.at(counts, alignment.family, measured.present.astype(np.float64))
    waits = alignment.semantics != Semantics.NONE.value
    of_family = np.zeros(shape[0], np.bool_)
    of_family[alignment.family[waits]] = True
    delay = np.where(measured.launched, measured.start - measured.launch, 0.0)
    launched = np.maximum(measured.launched.sum(axis=0), 1)
    work = duration.sum(axis=0)
    length = measured.finish - measured.begin
    machine = np.stack(
        [
            length,
            duration[~waits].sum(axis=0),
            duration[waits].sum(axis=0),
            delay.sum(axis=0) / launched,
            np.where(waits[:, None], 0.0, duration).max(axis=0),
            np.maximum(length - work, 0.0),
        ],
        axis=1,
    )
    return StepView(
        ranks=alignment.ranks,
        families=alignment.families,
        totals=totals,
        counts=counts,
        waits=of_family,
        collectives=np.where(measured.present, measured.duration, np.nan)[waits],
        machine=np.log(np.maximum(machine, 1.0)),
        length_ns=measured.longest_ns,
    )
