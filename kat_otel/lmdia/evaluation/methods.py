"""TTAD, and TTAD with one of its parts left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kat_otel.ttad.settings import Settings

__all__ = ["ABLATIONS", "TTAD"]

TTAD: Final = "TTAD"

ABLATIONS: Final[Mapping[str, Settings]] = {
    "without peers": Settings(without=frozenset({"peers"})),
    "without history": Settings(without=frozenset({"history"})),
    "without the walk": Settings(without=frozenset({"walk"})),
    "without calibration": Settings(
        tail_freedom=1e3, jitter_ns=0.0, relative_jitter=0.0, min_pool=2, min_impact_fraction=0.0
    ),
}
"""Parts of TTAD, left out one at a time. Without calibration: normal tails, no floor for the
jitter of a clock and of kernels, scales from as few as two residuals, nothing too small to name."""
