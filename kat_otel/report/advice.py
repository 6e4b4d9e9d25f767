"""What to look at next, one short line per component and one sentence per kind.

A small readable mapping, so that the first report already helps; the analyzer's
diagnosis stands in its place where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping

from kat_otel.verdict import Component, Incident, Kind

__all__ = ["KIND_MEANING", "NEXT_STEP", "next_step"]

KIND_MEANING: Mapping[Kind, str] = {
    "slow_kernel": "One kernel takes longer than the same kernel elsewhere.",
    "slow_rank": "Kernels of all sorts take longer than on the peers.",
    "late_launch": "The work is launched late; the kernels themselves take no longer.",
    "slow_transfer": "Moving the data takes longer, after all ranks have arrived.",
    "slow_copy": "Copies take longer than the same copies elsewhere.",
    "imbalance": "There is more work to do than on the peers.",
    "stall": "The work stops for a while and then goes on.",
    "structure": "Other operations run than on the peers.",
    "regression": "The same work takes longer than it did before.",
}
"""What each kind of incident means, in one sentence."""

NEXT_STEP: Mapping[Component, str] = {
    "gpu_clock": "Compare SM clocks of the named GPU with its peers (nvidia-smi -q -d CLOCK) and "
    "look for thermal throttle reasons (-d PERFORMANCE).",
    "gpu_power": "Check power cap and power-brake reasons (nvidia-smi -q -d POWER,PERFORMANCE) and "
    "the supply of the named host.",
    "gpu_compute": "Run a compute health check (dcgmi diag -r 3) on the named GPU, and see whether "
    "another process shares it.",
    "hbm": "Look for ECC errors and row remaps on the named GPU "
    "(nvidia-smi -q -d ECC,ROW_REMAPPER).",
    "nvlink": "Check NVLink error and recovery counters (nvidia-smi nvlink -e) on the named link.",
    "pcie": "Check link width and generation (nvidia-smi -q -d PCIE; lspci -vv) and replay "
    "counters.",
    "nic": "Check the network adapters of the named host: link state, error and congestion "
    "counters, route.",
    "host_cpu": "See what held the rank's process back: CPU steal and frequency, pinning, a busy "
    "neighbour, the Python thread that launches (py-spy dump).",
    "host_memory": "Look for garbage collection, page faults or swapping in the rank's process "
    "(vmstat, /proc/PID/status) at the time shown.",
    "storage": "Check the volume that offload and weights are read from: latency, queue, cache.",
    "software": "Compare versions with the last good run: engine, NCCL, driver, autotuned kernels.",
    "unknown": "Start from the evidence: the named spans on the named rank, against its peers.",
}
"""What to do next, by component."""


def next_step(incident: Incident) -> str:
    """Returns the line to read next: the diagnosis' first action if there is one, else ours."""
    actions = (incident.diagnosis or {}).get("actions")
    if isinstance(actions, list) and actions and isinstance(actions[0], str):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return actions[0]
    return NEXT_STEP[incident.component]
