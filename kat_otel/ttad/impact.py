"""What a step would save with a cause gone: the meetings replayed with the expected times.

Max-plus replay at the level of meetings. A rank's host launches its next meeting a stretch of
host time after the last one, or, where hosts wait for the GPU, not before the release; the
rank arrives when both its launch and its GPU's own work allow; a meeting releases its members
its transfer time after the last arrival; the step ends when the last rank has done what
follows its last meeting.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kat_otel.ttad.anchors import Anchors
from kat_otel.ttad.features import Features
from kat_otel.ttad.meetings import Meetings

__all__ = ["saving_ns"]

Float = NDArray[np.float64]


def saving_ns(
    met: Meetings, bound: Anchors, features: Features, healed: Float, transfer: Float
) -> float:
    """Replays the step without some of the time in it.

    Args:
        met: the meetings.
        bound: what bound their arrivals.
        features: of the step, for what follows the last meeting.
        healed: time taken out of each stretch, ns ``(C, R)``.
        transfer: ns ``(C,)``, the counterfactual of ``met.transfer``.

    Returns:
        How much earlier the step ends than in a replay of what was measured (ns, at least 0).
    """
    real = _end(met, bound, features, np.zeros_like(healed), met.transfer)
    return max(real - _end(met, bound, features, healed, transfer), 0.0)


def _end(
    met: Meetings, bound: Anchors, features: Features, healed: Float, transfer: Float
) -> float:
    """End of the step, ns since the origin."""
    ranks = int(met.member.shape[1])
    released: Float = np.zeros(ranks)
    launched: Float = np.zeros(ranks)
    last_real: Float = np.zeros(ranks)
    for c in range(len(met.node)):  # one turn per collective; ranks are a vector
        member = met.member[c]
        after = np.maximum(bound.launch[c] - (met.arrival[c] - met.elapsed[c]), 0.0)
        synced = np.asarray(bound.synced[c] & member, dtype=np.bool_)
        usual = float(np.median(after[synced])) if synced.any() else 0.0
        # free hosts launch by their own clock, but not before the release where peers wait for it
        own_clock = launched + bound.other[c] - healed[c]
        free = np.maximum(own_clock, released + usual) if synced.any() else own_clock
        launch = _pick(synced, released + after - healed[c], free)
        launch = _pick(bound.entry[c], bound.launch[c] - healed[c], launch)
        delay = np.maximum(met.arrival[c] - bound.launch[c], 0.0)
        by_host = np.maximum(launch + delay, released + bound.busy[c])
        by_gpu = released + met.elapsed[c] - healed[c]
        hosted = np.asarray(bound.host[c] | synced, dtype=np.bool_)
        bound_by = _pick(hosted, by_host, by_gpu)
        arrival = _pick(bound.entry[c], met.arrival[c] - healed[c], bound_by)
        release = float(_pick(member, arrival, -np.inf).max()) + float(transfer[c])
        released = _pick(member, release, released)
        launched = _pick(member, launch, launched)
        last_real = _pick(member, met.release[c], last_real)
    tail = np.maximum(features.finish - last_real, 0.0)
    return float((released + tail).max(initial=0.0))


def _pick(condition: NDArray[np.bool_], yes: Float | float, no: Float | float) -> Float:
    return np.where(condition, yes, no)
