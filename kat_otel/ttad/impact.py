"""What a step would save with a cause gone: the meetings replayed with the expected times.

Max-plus replay at the level of meetings: a rank arrives its elapsed time after its previous
release, a meeting releases its members its transfer time after the last arrival, and the
step ends when the last rank has done what follows its last meeting.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kat_otel.ttad.features import Features
from kat_otel.ttad.meetings import Meetings

__all__ = ["saving_ns"]

Float = NDArray[np.float64]


def saving_ns(met: Meetings, features: Features, elapsed: Float, transfer: Float) -> float:
    """Replays the step with other elapsed and transfer times.

    Args:
        elapsed: ns ``(C, R)``, the counterfactual of ``met.elapsed``.
        transfer: ns ``(C,)``, the counterfactual of ``met.transfer``.

    Returns:
        How much earlier the step ends than in a replay of what was measured (ns, at least 0).
    """
    real = _end(met, features, met.elapsed, met.transfer)
    return max(real - _end(met, features, elapsed, transfer), 0.0)


def _end(met: Meetings, features: Features, elapsed: Float, transfer: Float) -> float:
    """End of the step, ns since the origin."""
    released = np.zeros(met.member.shape[1])
    last_real = np.zeros(met.member.shape[1])
    for c in range(len(met.node)):  # one turn per collective; ranks are a vector
        member = met.member[c]
        arrival = np.where(member, released + elapsed[c], -np.inf).max()
        released = np.where(member, arrival + transfer[c], released)
        last_real = np.where(member, met.release[c], last_real)
    tail = np.maximum(features.finish - last_real, 0.0)
    return float((released + tail).max(initial=0.0))
