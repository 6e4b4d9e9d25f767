"""Which hardware signal speaks for which component, and how loudly.

The weights are likelihood ratios in three sizes, chosen and not measured: ``DECISIVE`` for what
the part itself reports as its fault, ``STRONG`` for what nearly always comes with it, ``WEAK``
for what often does. They are sized so that one decisive signal overrules the order of the priors,
a strong one decides between neighbours, and a weak one only strengthens. ``ABSENT`` is for what
would have to show and is measured and does not; what nobody measures weighs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from kat_otel.hardware.readings import Signal
from kat_otel.verdict import Component, Kind

__all__ = ["ABSENT", "ALSO", "ANY_OTHER", "RULES", "SECOND", "WATCHED", "WEAK", "Rule"]

DECISIVE: Final = 100.0
STRONG: Final = 10.0
WEAK: Final = 3.0
SECOND: Final = 2.0
"""A further, different signal for the same component: more of them tell little that is new,
since they have one cause."""
ABSENT: Final = 1 / 3

Way = Literal["more", "below", "above", "on", "event"]
"""``more`` of a count or share than elsewhere, ``below`` or ``above`` a level, a flag that is
``on``, an ``event`` that happened."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A signal that speaks for a component.

    Attributes:
        signal: what is read.
        component: what it speaks for.
        weight: likelihood ratio if it deviates.
        way: how it deviates.
        least: smallest deviation that counts: of ``more`` the share or growth, of ``below`` the
            part by which it is lower, of ``above`` the difference.
        details: details that count; all if empty.
        kinds: kinds of incident in which it counts; all if empty. A GPU that waits for its
            own host clocks down too: there low clocks are a symptom.
        unless: signals that would tell better; if they are measured, this one is silent.
    """

    signal: Signal
    component: Component
    weight: float
    way: Way = "more"
    least: float = 0.0
    details: frozenset[str] = frozenset()
    kinds: frozenset[Kind] = frozenset()
    unless: frozenset[Signal] = frozenset()


def _xid(component: Component, weight: float, *codes: int) -> Rule:
    return Rule("xid", component, weight, "event", details=frozenset(map(str, codes)))


def _log(signal: Signal, component: Component, weight: float, *details: str) -> Rule:
    return Rule(signal, component, weight, "event", details=frozenset(details))


_BUSY: Final[frozenset[Kind]] = frozenset({"slow_rank", "slow_kernel", "regression", "imbalance"})
_MOVING: Final[frozenset[Kind]] = frozenset({"slow_copy", "slow_transfer"})
_LATE: Final[frozenset[Kind]] = frozenset({"late_launch", "stall"})
_SENDING: Final[frozenset[Kind]] = frozenset({"slow_transfer"})
_POWER_BITS: Final[frozenset[Signal]] = frozenset({"throttle_power_cap", "throttle_power_brake"})

RULES: Final[tuple[Rule, ...]] = (
    # The GPU says by itself why it runs slower.
    Rule("throttle_thermal", "gpu_clock", DECISIVE, least=0.05),
    Rule("throttle_hw_slowdown", "gpu_clock", STRONG, least=0.05),
    Rule("throttle_setting", "gpu_clock", STRONG, least=0.05),
    Rule("throttle_power_cap", "gpu_power", DECISIVE, least=0.05),
    Rule("throttle_power_brake", "gpu_power", DECISIVE, least=0.05),
    Rule("power_limit", "gpu_power", STRONG, "below", 0.05),
    Rule("sm_clock", "gpu_clock", STRONG, "below", 0.03, kinds=_BUSY),
    Rule("sm_clock", "gpu_power", WEAK, "below", 0.03, kinds=_BUSY, unless=_POWER_BITS),
    Rule("temperature", "gpu_clock", WEAK, "above", 8.0, kinds=_BUSY),
    # Its memory.
    Rule("ecc_uncorrected", "hbm", DECISIVE, least=1),
    Rule("row_remaps", "hbm", DECISIVE, least=1),
    Rule("row_remap_failure", "hbm", DECISIVE, "on"),
    Rule("row_remap_pending", "hbm", STRONG, "on"),
    Rule("ecc_corrected", "hbm", STRONG, least=10),
    Rule("memory_clock", "hbm", STRONG, "below", 0.03, kinds=_BUSY),
    Rule("memory_temperature", "hbm", WEAK, "above", 8.0, kinds=_BUSY),
    # The driver's errors, by their meaning in NVIDIA's catalog.
    _xid("hbm", DECISIVE, 48, 63, 64, 92, 94, 95, 140),
    _xid("nvlink", DECISIVE, 74, *range(144, 151)),
    _xid("pcie", STRONG, 32, 79, 121),
    _xid("gpu_compute", STRONG, 38, 46, 61, 62, 79, 109, 119, 120),
    _xid("software", STRONG, 13, 31, 43, 69),
    # Links of the GPU.
    Rule("pcie_width", "pcie", DECISIVE, "below", 0.3),
    Rule("pcie_generation", "pcie", STRONG, "below", 0.15, kinds=_MOVING),
    Rule("pcie_replays", "pcie", STRONG, least=10),
    Rule("pcie_errors", "pcie", STRONG, least=10),
    _log("pcie_error", "pcie", DECISIVE, "uncorrected"),
    _log("pcie_error", "pcie", STRONG, "corrected"),
    Rule("nvlink_recoveries", "nvlink", DECISIVE, least=1),
    Rule("nvlink_crc", "nvlink", STRONG, least=1),
    Rule("nvlink_replays", "nvlink", STRONG, least=1),
    # A neighbour's copies fill the link. The instance's own are less while it waits.
    Rule("pcie_rate", "pcie", STRONG, "above", 5e9, kinds=_MOVING | _LATE),
    Rule("nvlink_rate", "nvlink", STRONG, "above", 5e10, kinds=_SENDING),
    _log("nccl_warning", "nvlink", STRONG, "nvlink"),
    _log("nccl_warning", "pcie", STRONG, "pcie"),
    # The network.
    _log("nccl_warning", "nic", DECISIVE, "ib", "socket"),
    _log("link_down", "nic", DECISIVE),
    Rule("ib_errors", "nic", STRONG, least=1),
    Rule("net_retransmits", "nic", STRONG, least=100),
    Rule("net_errors", "nic", STRONG, least=10),
    Rule("net_drops", "nic", WEAK, least=100),
    Rule("ib_wait", "nic", WEAK, least=1e6),
    # The host.
    Rule("cpu_steal", "host_cpu", STRONG, least=0.1),
    Rule("cgroup_throttled", "host_cpu", STRONG, least=0.02),
    Rule("cpu_pressure", "host_cpu", STRONG, least=0.05),
    Rule("cpu_clock", "host_cpu", STRONG, "below", 0.1),
    Rule("cpu_run_queue", "host_cpu", WEAK, "above", 8.0),
    _log("cpu_thermal", "host_cpu", STRONG),
    _log("cpu_lockup", "host_cpu", STRONG),
    Rule("page_faults", "host_memory", STRONG, least=100),
    Rule("swap", "host_memory", STRONG, least=100),
    Rule("swapped", "host_memory", WEAK, "above", 64.0),
    Rule("memory_pressure", "host_memory", STRONG, least=0.02),
    Rule("memory_errors", "host_memory", STRONG, least=1),
    _log("out_of_memory_kill", "host_memory", DECISIVE),
    _log("memory_error", "host_memory", STRONG),
    Rule("disk_busy", "storage", STRONG, least=0.5),
    Rule("io_pressure", "storage", STRONG, least=0.05),
    _log("disk_error", "storage", DECISIVE),
    # The program.
    _log("engine_preemption", "software", WEAK),
    _log("engine_out_of_memory", "software", STRONG),
    _log("nccl_warning", "software", WEAK, "cuda", "other"),
)
"""Signal to component, beside the design's table of the same name."""

WATCHED: Final[Mapping[Component, tuple[Signal, ...]]] = {
    "gpu_clock": ("throttle_thermal", "sm_clock"),
    "gpu_power": ("throttle_power_cap", "throttle_power_brake", "sm_clock"),
    "hbm": ("ecc_uncorrected", "row_remaps", "ecc_corrected"),
    "nvlink": ("nvlink_crc", "nvlink_replays", "nvlink_recoveries"),
    "pcie": ("pcie_replays", "pcie_errors", "pcie_width"),
    "nic": ("net_retransmits", "net_errors", "ib_errors"),
    "host_cpu": ("cpu_steal", "cgroup_throttled", "cpu_pressure"),
    "host_memory": ("page_faults", "swap", "memory_pressure"),
    "storage": ("disk_busy", "io_pressure"),
}
"""What would show if the component were the cause. Compute units and software have no such sign."""

ALSO: Final[Mapping[Kind, Mapping[Component, float]]] = {
    "slow_rank": {"hbm": 0.03},
    "slow_kernel": {"gpu_clock": 0.03, "gpu_power": 0.03},
    "late_launch": {"storage": 0.02, "pcie": 0.01},
    "stall": {"storage": 0.08, "software": 0.02},
    "slow_copy": {"storage": 0.05, "nvlink": 0.03},
    "regression": {"gpu_power": 0.05, "nvlink": 0.03, "nic": 0.03, "hbm": 0.02, "host_cpu": 0.02},
    "imbalance": {"gpu_clock": 0.03, "gpu_power": 0.02},
    "structure": {"host_memory": 0.02},
}
"""Components that traces alone do not name for a kind, but that hardware can bring in."""

ANY_OTHER: Final = 0.005
"""The same for every other component: only decisive signals can bring it in."""
