"""From what was measured to the hardware or software component that explains it.

The table is the design's "signal to component": traces alone name candidates, hardware
metrics and logs raise or lower them later. The probabilities are priors, said as such: they
order the candidates and never reach certainty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from kat_otel.verdict import Component, ComponentCandidate, Kind

__all__ = ["candidates"]

_COMPUTE_BOUND = re.compile(
    r"gemm|cutlass|nvjet|xmma|wgmma|cublas|conv|matmul|mma|Cijk", re.IGNORECASE
)

_PRIORS: dict[Kind, tuple[tuple[Component, float], ...]] = {
    "slow_rank": (("gpu_clock", 0.5), ("gpu_power", 0.25), ("gpu_compute", 0.2)),
    "slow_kernel": (("gpu_compute", 0.45), ("hbm", 0.3), ("software", 0.2)),
    "late_launch": (("host_cpu", 0.7), ("host_memory", 0.2), ("software", 0.1)),
    "stall": (("host_cpu", 0.5), ("host_memory", 0.4)),
    "slow_transfer": (("nvlink", 0.6), ("pcie", 0.2), ("nic", 0.2)),
    "slow_copy": (("pcie", 0.7), ("host_memory", 0.2)),
    "regression": (("software", 0.8), ("gpu_clock", 0.1)),
    "imbalance": (("software", 0.9),),
    "structure": (("software", 0.8), ("host_cpu", 0.1)),
}


def candidates(
    kind: Kind, kernels: Sequence[str] = (), *, hosts: int = 1
) -> list[ComponentCandidate]:
    """Returns the candidates of an incident, the likeliest first.

    Args:
        kind: of the incident.
        kernels: names of the slow kernels or copies.
        hosts: hosts that the group spans; more than one brings in the network.
    """
    priors: tuple[tuple[Component, float], ...] = _PRIORS[kind]
    if kind == "slow_transfer" and hosts > 1:
        priors = (("nic", 0.7), ("nvlink", 0.2), ("pcie", 0.1))
    if kind in ("slow_rank", "slow_kernel") and len(kernels) >= 3:
        bound = sum(bool(_COMPUTE_BOUND.search(name)) for name in kernels)
        if bound == 0:  # memory-bound kernels alone are slower
            priors = (("hbm", 0.6), ("gpu_compute", 0.2), ("gpu_clock", 0.15))
    if kind == "slow_copy" and kernels and all("PtoP" in name for name in kernels):
        priors = (("nvlink", 0.7), ("pcie", 0.2))
    return [ComponentCandidate(component=c, probability=p) for c, p in priors]
