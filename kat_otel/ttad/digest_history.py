"""What is usual for the digests of one kind of step, and what departs from it.

Every rank and step is a row of *features*, shares of the step's length: time others waited for
it, excess of its kernel time, of its copies, of each kernel class. Two tests, both robust:

- a *jump*: the feature departs from the rank's own median of the last healthy steps, far beyond
  the scale pooled over all ranks and beyond twice the worst residual ever kept;
- a *standing* difference: the rank stands out from its peers by the minimum size in seven of
  the last eight steps, whatever history says: a fault that was there from the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kat_otel.ttad.digest_batch import DigestBatch
from kat_otel.ttad.digest_lateness import (
    HOST,
    LATE,
    START,
    class_excess,
    late_times,
)
from kat_otel.ttad.digest_loops import features_of, large_of, medians, spread, stand_out
from kat_otel.ttad.loops import median_of, plain
from kat_otel.ttad.robust import MAD_TO_SIGMA, t_tail
from kat_otel.ttad.settings import Settings

__all__ = [
    "BEGIN",
    "CLASSES",
    "COPY",
    "SLOW",
    "WAITED",
    "DigestHistory",
    "Flags",
    "Measured",
    "host_share",
]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

WAITED, BEGIN, SLOW, COPY, CLASSES = 0, 1, 2, 3, 4
"""Features by place: waited for within the step, waited for at its begin, slow kernels, slow
copies (all shares of the step's length, SLOW of the kernel time), then the kernel classes."""

_FLOOR = 0.002
"""Smallest scale of a share of the step."""

_BEYOND = 2.0
"""A jump exceeds the worst healthy residual by this factor."""

_BROAD = 0.5
"""A rank is slow as a whole if classes with this share of its kernel time are slower."""

_MIN_CLASS_SHARE = 0.005
"""A kernel class beyond ``min_kernel_excess`` must cost this share of the step."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Features of a batch.

    Attributes:
        features: float64 ``(S, R, 4 + K)``.
        late: raw times of :func:`late_times`, ns ``(S, R, 5)``.
        excess, expected: of the kernel classes, ns ``(S, R, K)``.
        breadth: share of the kernel time in slower classes ``(S, R)``.
        transfer: sum of the collectives' transfers, ns ``(S,)``.
        length: of the steps, ns ``(S,)``.
        sided: false where two ranks differ and no history says which is usual.
    """

    features: Float
    late: Float
    excess: Float
    expected: Float
    breadth: Float
    transfer: Float
    length: Float
    sided: bool

    def steps(self, first: int, last: int) -> Measured:
        """Returns the steps from ``first`` to ``last`` (excluded), as views."""
        part = slice(first, last)
        return Measured(
            self.features[part],
            self.late[part],
            self.excess[part],
            self.expected[part],
            self.breadth[part],
            self.transfer[part],
            self.length[part],
            self.sided,
        )


@dataclass(frozen=True, slots=True)
class Flags:
    """What departs: bool ``(S, R, 4 + K)`` by feature, and ``(S,)`` for the whole group."""

    features: Bool
    transfer: Bool
    regression: Bool

    @property
    def any(self) -> Bool:
        """Steps in which anything departs, bool ``(S,)``."""
        if not self.features.any():
            return self.transfer | self.regression
        return self.features.any(axis=(1, 2)) | self.transfer | self.regression

    def step(self, at: int) -> Flags:
        """Returns one step, as views."""
        part = slice(at, at + 1)
        return Flags(self.features[part], self.transfer[part], self.regression[part])


class DigestHistory:
    """The last healthy steps of one kind; bounded by ``settings.history_steps``.

    Args:
        settings: thresholds.
        batch: the first steps of the kind: ranks and classes are theirs for good.
    """

    def __init__(self, settings: Settings, batch: DigestBatch) -> None:
        self._settings = settings
        self.classes = batch.classes
        ranks, kinds = batch.present.shape[1], len(batch.classes)
        known = batch.lead[batch.lead >= 0]
        self.host_bound_ns = 2 * float(np.percentile(known, 2)) + 1000 if known.size else -1.0
        keep = settings.history_steps
        self._features = np.zeros((keep, ranks, CLASSES + kinds))
        self._time = np.zeros((keep, ranks, kinds))
        self._transfer = np.zeros(keep)
        self.steps = 0
        self._fresh = 0
        window = settings.min_history
        self._standing = np.zeros((window - 1, ranks, CLASSES + kinds), np.bool_)
        self._groups = np.zeros((2, 2), np.bool_)
        self._usual: _Usual | None = None

    def reload(self, settings: Settings) -> None:
        """Takes new thresholds; ``history_steps`` and ``min_history`` stay those of before."""
        kept = self._settings
        self._settings = replace(
            settings, history_steps=kept.history_steps, min_history=kept.min_history
        )

    def measure(self, batch: DigestBatch) -> Measured:
        """Returns the features of a batch of this kind of step."""
        return self.with_usual(batch, self.by_peers(batch))

    def by_peers(self, batch: DigestBatch) -> Measured:
        """Returns the features as far as the ranks of each step tell them, history aside."""
        late, transfer = late_times(
            batch.ends, batch.spent, batch.lead, batch.present, batch.group, self.host_bound_ns
        )
        length = np.maximum(batch.length_ns, 1.0)
        excess, expected = class_excess(batch.time, batch.present)
        features, breadth = features_of(
            plain(late[:, :, [LATE, START]]),
            excess,
            expected,
            _over_others(unpacked_copies(batch)),
            length,
        )
        sided = batch.present.shape[1] > 2
        return Measured(features, late, excess, expected, breadth, transfer, length, sided)

    def with_usual(self, batch: DigestBatch, measured: Measured) -> Measured:
        """Returns the features; of one or two ranks with history in the place of peers."""
        if measured.sided or self._usual is None:
            return measured
        expected = np.empty_like(batch.time)
        expected[:] = self._usual.time
        excess = batch.time - expected
        features, breadth = features_of(
            plain(measured.late[:, :, [LATE, START]]),
            excess,
            expected,
            measured.features[:, :, COPY] * measured.length[:, None],
            measured.length,
        )
        return replace(
            measured,
            features=features,
            excess=excess,
            expected=expected,
            breadth=breadth,
            sided=True,
        )

    def judge(self, batch: DigestBatch, measured: Measured) -> Flags:
        """Returns what departs, and remembers the steps in which nothing does."""
        found = self.flags(batch, measured)
        self.remember(batch, measured, ~found.any)
        return found

    def flags(self, batch: DigestBatch, measured: Measured) -> Flags:
        """Returns what departs from the history as it is; nothing is remembered."""
        large = self._large(measured)
        standing = self._stand_out(measured, large)
        flags = standing if self._usual is None else standing | self._jumps(measured, large)
        return Flags(flags, *self._group_changes(batch, measured))

    @property
    def room(self) -> int:
        """Steps that can be judged at once as if they came one by one.

        What is usual is computed anew after so many healthy ones at the earliest.
        """
        known = self.steps if self._usual is None else self._fresh
        return max(1, min(self._until_anew - known, len(self._features)))

    @property
    def _until_anew(self) -> int:
        """Healthy steps after which what is usual is computed anew: half of a full history."""
        keep, least = len(self._features), self._settings.min_history
        return least if self.steps < keep else max(least, keep // 2)

    @property
    def ready(self) -> bool:
        """Whether there are enough healthy steps to tell what is usual."""
        return self._usual is not None

    @property
    def usual_features(self) -> Float | None:
        """Each rank's usual features ``(R, 4 + K)``; None before there is a history."""
        return None if self._usual is None else self._usual.middle

    @property
    def usual_transfer(self) -> float:
        """Usual sum of transfers, ns; 0 before there is a history."""
        return 0.0 if self._usual is None else self._usual.transfer

    @property
    def usual_time(self) -> Float:
        """Usual time of each rank's kernel classes ``(R, K)``, ns; 0 before there is a history."""
        return self._time[0] * 0 if self._usual is None else self._usual.time

    @property
    def false_alarm_rate(self) -> float:
        """Chance of a finding in a healthy step that the thresholds aim at."""
        return self._settings.false_alarm_rate

    def score(self, features: Float, column: int, flags: Bool) -> float:
        """Returns the largest deviation of the flagged features, in standard deviations."""
        usual = self._usual
        middle = 0.0 if usual is None else usual.middle[column]
        scale = _FLOOR if usual is None else usual.scale
        return float(((features - middle) / scale)[flags].max())

    def _large(self, measured: Measured) -> Bool:
        settings = self._settings
        least = np.array(
            [
                settings.min_impact_fraction,
                settings.min_rank_excess,
                _BROAD,
                settings.min_kernel_excess,
                _MIN_CLASS_SHARE,
            ]
        )
        return large_of(
            measured.features, measured.breadth, measured.excess, measured.expected, least
        )

    def _stand_out(self, measured: Measured, large: Bool) -> Bool:
        alone = stand_out(measured.features, large)
        window = len(self._standing) + 1
        seen = np.concatenate([self._standing, alone])
        self._standing = seen[len(seen) - window + 1 :].copy()
        if not alone.any():
            return alone
        # ``window - 1`` of the last ``window`` steps, this one among them.
        sums = np.cumsum(np.concatenate([np.zeros_like(seen[:1], np.int64), seen]), axis=0)
        return alone & (sums[window:] - sums[:-window] >= window - 1)

    def _jumps(self, measured: Measured, large: Bool) -> Bool:
        usual = self._usual
        flags = np.zeros_like(large)
        at = np.nonzero(large)
        if usual is None or not len(at[0]):
            return flags
        residual = measured.features[at] - usual.middle[at[1], at[2]]
        z = residual / usual.scale[at[2]]
        p = t_tail(z, self._settings.tail_freedom, xp=np) * large.shape[1] * large.shape[2]
        size = np.where(
            at[2] == SLOW, self._settings.min_rank_excess, self._settings.min_impact_fraction
        )
        size = np.where(at[2] >= CLASSES, _MIN_CLASS_SHARE, size)
        flags[at] = (
            (p <= self._settings.false_alarm_rate)
            & (residual >= _BEYOND * usual.worst[at[2]])
            & (residual >= size)
        )
        return flags

    def _group_changes(self, batch: DigestBatch, measured: Measured) -> tuple[Bool, Bool]:
        usual, settings = self._usual, self._settings
        if usual is None:
            nothing = np.zeros(len(measured.length), np.bool_)
            return nothing, nothing
        more = measured.transfer - usual.transfer
        slow = (
            (more >= settings.min_transfer_excess * usual.transfer)
            & (more >= settings.min_impact_fraction * measured.length)
            & (more >= _BEYOND * usual.transfer_worst)
        )
        total = batch.time.sum(axis=2)
        ratio = np.where(batch.present, total / usual.total, np.inf)
        everybody = ratio.min(axis=1) >= 1 + settings.min_transfer_excess
        if not (slow.any() or everybody.any() or self._groups.any()):
            return slow, everybody
        # everybody must be slower for three steps in a row
        seen = np.concatenate([self._groups, np.stack([slow, everybody])], axis=1)
        self._groups = seen[:, -2:].copy()
        run = seen[:, 2:] & seen[:, 1:-1] & seen[:, :-2]
        return run[0], run[1]

    def remember(self, batch: DigestBatch, measured: Measured, healthy: Bool) -> None:
        """Remembers the healthy steps, bool ``(S,)``, as far as all of their ranks are there."""
        keep = len(self._features)
        rows = np.flatnonzero(healthy & batch.present.all(axis=1))[-keep:]
        if not len(rows):
            return
        at = (self.steps + np.arange(len(rows))) % keep
        self._features[at] = measured.features[rows]
        self._time[at] = batch.time[rows]
        self._transfer[at] = measured.transfer[rows]
        self.steps += len(rows)
        self._fresh += len(rows)
        enough = self.steps >= self._settings.min_history
        if enough and (self._usual is None or self._fresh >= self._until_anew):
            self._fresh = 0
            count = min(self.steps, keep)
            worst = None if self._usual is None else self._usual.worst
            self._usual = _Usual.of(
                self._features[:count], self._time[:count], self._transfer[:count], worst
            )


@dataclass(frozen=True, slots=True)
class _Usual:
    """Medians, pooled scales and worst residuals of the steps remembered."""

    middle: Float
    scale: Float
    worst: Float
    time: Float
    total: Float
    transfer: float
    transfer_worst: float

    @staticmethod
    def of(features: Float, time: Float, transfer: Float, worst: Float | None) -> _Usual:
        middle = medians(features)
        typical, peak = spread(features, middle)
        scale = np.maximum(MAD_TO_SIGMA * typical, _FLOOR)
        if worst is not None:  # rare outliers are remembered for longer than the steps
            peak = np.maximum(peak, 0.9 * worst)
        centre, usual_time = median_of(transfer), medians(time)
        return _Usual(
            middle,
            scale,
            peak,
            usual_time,
            np.maximum(usual_time.sum(axis=1), 1.0),
            centre,
            float(np.abs(transfer - centre).max()),
        )


def unpacked_copies(batch: DigestBatch) -> Float:
    """Returns the time of all copies of each rank and step, float64 ``(S, R)`` ns."""
    packed = batch.header["copy_ns"].astype(np.int64)
    return ((packed & 2047) << (packed >> 11)).sum(axis=2).astype(np.float64)


def _over_others(values: Float) -> Float:
    """Returns what exceeds the median of the other ranks, ``(S, R)``; 0 of a rank without peers."""
    excess, _ = class_excess(
        np.ascontiguousarray(values[:, :, None]), np.ones(values.shape, np.bool_)
    )
    return plain(excess[:, :, 0])


def host_share(measured: Measured, step: int, column: int) -> float:
    """Returns which share of a rank's lateness its host is to blame for."""
    late = measured.late[step, column]
    whole = late[LATE] + late[START]
    return float((late[HOST] + late[START]) / whole) if whole > 0 else 0.0
