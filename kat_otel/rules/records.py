"""Recorded series: what alerts compare, and what is costly to ask for of ten thousand GPUs.

A rank's metrics are many series: 14 of lateness, four of step time. Whoever looks at an instance or
a host for days asks for the sums, which are few.
"""

from __future__ import annotations

from typing import Final

from kat_otel.dashboards import names
from kat_otel.rules.rule import Group, Record

__all__ = ["LOST_RATIO", "groups"]

LOST_RATIO: Final = "kat_instance:lost_gpu_ratio:rate"
"""Followed by the window: ``5m``, ``1h``, ``1d``."""

_LOST_GPUS: Final = "kat_instance:lost_gpus:rate5m"
_RANKS: Final = "kat_instance:ranks:count"
_BY: Final = names.INSTANCE


def groups() -> list[Group]:
    """Returns all recording rules."""
    return [
        Group("kat-lost-gpu-time", _lost()),
        Group("kat-steps", _steps()),
        Group("kat-places", _places()),
    ]


def _lost() -> list[Record]:
    ratio = f"{LOST_RATIO}5m"
    return [
        Record(
            _RANKS,
            f"count by ({_BY}) (count by ({_BY}, {names.RANK}) ({names.INFO}))",
            "Ranks of an instance, a GPU each.",
        ),
        Record(
            _LOST_GPUS,
            f"sum by ({_BY}) (rate({names.LOST}[5m]))",
            "GPUs of an instance that do nothing but wait for a culprit.",
        ),
        Record(
            ratio,
            f"{_LOST_GPUS} / on ({_BY}) {_RANKS}",
            "The same as a share of its GPUs: what the budget is compared with.",
        ),
        *(
            Record(
                f"{LOST_RATIO}{window}",
                # Not avg_over_time: an instance that began just now has not lost all day.
                f"sum_over_time({ratio}[{window}:5m]) / {parts}",
                f"The mean of it over {window}, the time before the instance began taken as 0.",
            )
            for window, parts in (("1h", 12), ("1d", 288))
        ),
        Record(
            "kat_component:lost_gpus:rate5m",
            f"sum by ({names.COMPONENT}) (rate({names.LOST}[5m]))",
            "GPUs lost in the whole fleet, by component.",
        ),
    ]


def _steps() -> list[Record]:
    parts = "kat_instance:step_time_seconds:rate5m"
    return [
        *(
            Record(
                f"kat_instance:step_duration_seconds:p{100 * q:g}_5m",
                f"histogram_quantile({q:g}, sum by ({_BY}, le) (rate({names.STEP}_bucket[5m])))",
                f"Step time that {100 * q:g} of 100 steps of an instance stay below.",
            )
            for q in (0.5, 0.99)
        ),
        Record(
            parts,
            f"sum by ({_BY}, {names.PART}) (rate({names.PARTS}[5m]))",
            "Time of the sampled steps by part, a second: four series for four of each rank.",
        ),
        Record(
            "kat_instance:step_time_ratio:rate5m",
            f"{parts} / on ({_BY}) group_left () sum by ({_BY}) ({parts})",
            "Share of the ranks' time by part.",
        ),
        Record(
            "kat_rank:arrival_skew_seconds:mean5m",
            f"sum by ({_BY}, {names.RANK}) (rate({names.SKEW}_sum[5m])) "
            f"/ sum by ({_BY}, {names.RANK}) (rate({names.SKEW}_count[5m]))",
            "How late a rank comes to collectives: one series of a rank for its histogram's 15.",
        ),
    ]


def _places() -> list[Record]:
    by = f"{_BY}, {names.HOST}, {names.RACK}, {names.SWITCH}"
    return [
        Record(
            "kat_host:caused_lost_gpus:rate5m",
            f"sum by ({by}) (rate({names.CAUSED}[5m]))",
            "GPUs that an instance loses because of the ranks of a host, with its rack and "
            "switch: a series of a host for one of each rank.",
        )
    ]
