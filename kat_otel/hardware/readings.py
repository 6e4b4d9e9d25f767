"""A reading: what one hardware signal of one device or host said around an incident.

The set of signals is closed: whatever comes in under another name is passed on, but joins
nothing. A reading sums a series up, once for the time of the incident and once for the time
before it, so that whoever judges compares two numbers and not two lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from kat_otel.spans import UNKNOWN

__all__ = [
    "GPU_SIGNALS",
    "SIGNALS",
    "Form",
    "Phase",
    "Reading",
    "Signal",
    "SignalSpec",
    "clean_text",
]

Signal = Literal[
    # GPU, by hw.id
    "sm_clock",
    "memory_clock",
    "throttle_thermal",
    "throttle_power_cap",
    "throttle_power_brake",
    "throttle_hw_slowdown",
    "throttle_setting",
    "power",
    "power_limit",
    "temperature",
    "memory_temperature",
    "gpu_utilization",
    "pcie_replays",
    "pcie_errors",
    "pcie_width",
    "pcie_generation",
    "nvlink_crc",
    "nvlink_replays",
    "nvlink_recoveries",
    "nvlink_bytes",
    "pcie_rate",
    "nvlink_rate",
    "ecc_uncorrected",
    "ecc_corrected",
    "row_remaps",
    "row_remap_pending",
    "row_remap_failure",
    "xid",
    # host
    "cpu_clock",
    "cpu_steal",
    "cpu_run_queue",
    "cpu_pressure",
    "cgroup_throttled",
    "page_faults",
    "swap",
    "swapped",
    "memory_pressure",
    "memory_errors",
    "net_retransmits",
    "net_drops",
    "net_errors",
    "ib_errors",
    "ib_wait",
    "disk_busy",
    "io_pressure",
    # lines of logs
    "nccl_warning",
    "engine_out_of_memory",
    "engine_preemption",
    "out_of_memory_kill",
    "memory_error",
    "cpu_thermal",
    "cpu_lockup",
    "pcie_error",
    "link_down",
    "disk_error",
]
"""What is read. Everything else is passed on unread."""

Form = Literal["level", "share", "count", "event"]
"""How a signal is summed up: ``level`` the median of its samples; ``share`` the part of the time
(or CPUs) it was on; ``count`` how much it grew; ``event`` each occurrence by itself."""

Phase = Literal["before", "during"]


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """What a signal is.

    Attributes:
        form: how it is summed up.
        unit: of its value, UCUM as OpenTelemetry writes it.
        words: what a person calls it.
    """

    form: Form
    unit: str
    words: str


SIGNALS: Final[Mapping[Signal, SignalSpec]] = MappingProxyType(
    {
        "sm_clock": SignalSpec("level", "MHz", "SM clock"),
        "memory_clock": SignalSpec("level", "MHz", "memory clock"),
        "throttle_thermal": SignalSpec("share", "1", "thermal throttling"),
        "throttle_power_cap": SignalSpec("share", "1", "throttling at the power cap"),
        "throttle_power_brake": SignalSpec("share", "1", "power-brake throttling"),
        "throttle_hw_slowdown": SignalSpec("share", "1", "hardware slowdown"),
        "throttle_setting": SignalSpec("share", "1", "clock held by a setting"),
        "power": SignalSpec("level", "W", "power draw"),
        "power_limit": SignalSpec("level", "W", "power limit"),
        "temperature": SignalSpec("level", "Cel", "GPU temperature"),
        "memory_temperature": SignalSpec("level", "Cel", "memory temperature"),
        "gpu_utilization": SignalSpec("level", "1", "GPU utilization"),
        "pcie_replays": SignalSpec("count", "{replay}", "PCIe replays"),
        "pcie_errors": SignalSpec("count", "{error}", "PCIe errors"),
        "pcie_width": SignalSpec("level", "{lane}", "PCIe link width"),
        "pcie_generation": SignalSpec("level", "1", "PCIe link generation"),
        "nvlink_crc": SignalSpec("count", "{error}", "NVLink CRC errors"),
        "nvlink_replays": SignalSpec("count", "{replay}", "NVLink replays"),
        "nvlink_recoveries": SignalSpec("count", "{recovery}", "NVLink recoveries"),
        "nvlink_bytes": SignalSpec("count", "By", "NVLink traffic"),
        "pcie_rate": SignalSpec("level", "By/s", "PCIe traffic"),
        "nvlink_rate": SignalSpec("level", "By/s", "NVLink traffic a second"),
        "ecc_uncorrected": SignalSpec("count", "{error}", "uncorrected ECC errors"),
        "ecc_corrected": SignalSpec("count", "{error}", "corrected ECC errors"),
        "row_remaps": SignalSpec("count", "{row}", "remapped memory rows"),
        "row_remap_pending": SignalSpec("level", "1", "pending row remap"),
        "row_remap_failure": SignalSpec("level", "1", "failed row remap"),
        "xid": SignalSpec("event", "1", "Xid"),
        "cpu_clock": SignalSpec("level", "MHz", "CPU clock"),
        "cpu_steal": SignalSpec("share", "{cpu}", "CPU time stolen by the hypervisor"),
        "cpu_run_queue": SignalSpec("level", "{thread}", "run queue"),
        "cpu_pressure": SignalSpec("share", "1", "tasks waiting for a CPU"),
        "cgroup_throttled": SignalSpec("share", "1", "CPU quota throttling"),
        "page_faults": SignalSpec("count", "{fault}", "major page faults"),
        "swap": SignalSpec("count", "{operation}", "swapping"),
        "swapped": SignalSpec("level", "MiBy", "memory of the process in swap"),
        "memory_pressure": SignalSpec("share", "1", "tasks waiting for memory"),
        "memory_errors": SignalSpec("count", "{error}", "memory errors of the host"),
        "net_retransmits": SignalSpec("count", "{segment}", "TCP retransmits"),
        "net_drops": SignalSpec("count", "{packet}", "dropped packets"),
        "net_errors": SignalSpec("count", "{error}", "network errors"),
        "ib_errors": SignalSpec("count", "{error}", "InfiniBand link errors"),
        "ib_wait": SignalSpec("count", "{tick}", "InfiniBand transmit waits"),
        "disk_busy": SignalSpec("share", "1", "disk busy"),
        "io_pressure": SignalSpec("share", "1", "tasks waiting for I/O"),
        "nccl_warning": SignalSpec("event", "1", "NCCL warning"),
        "engine_out_of_memory": SignalSpec("event", "1", "GPU memory exhausted"),
        "engine_preemption": SignalSpec("event", "1", "requests preempted and recomputed"),
        "out_of_memory_kill": SignalSpec("event", "1", "process killed for memory"),
        "memory_error": SignalSpec("event", "1", "memory error of the host"),
        "cpu_thermal": SignalSpec("event", "1", "CPU throttled by temperature"),
        "cpu_lockup": SignalSpec("event", "1", "CPU stuck in the kernel"),
        "pcie_error": SignalSpec("event", "1", "PCIe error"),
        "link_down": SignalSpec("event", "1", "network link down"),
        "disk_error": SignalSpec("event", "1", "disk error"),
    }
)
"""The signals."""

GPU_SIGNALS: Final = frozenset(tuple(SIGNALS)[: tuple(SIGNALS).index("xid") + 1])
"""Signals that are of a GPU: without one named, they join nothing."""

_TEXT_BYTES = 240


@dataclass(frozen=True, slots=True)
class Reading:
    """A series, summed up over the incident or over the time before it.

    Attributes:
        signal: what was read.
        phase: ``during`` the incident, or ``before`` it (by more than the window).
        value: by the signal's form: median, share of the time, growth, or 1 for an event.
        begin_ns, end_ns: Unix ns of the first and last sample, or what the intervals cover.
        samples: how many samples (intervals of counters) it rests on.
        rank: of the device or process; ``UNKNOWN`` for what concerns the host.
        host: host name as it was said, or ``""``.
        device: ``hw.id`` as the workers write it, or ``""``.
        detail: which of several: Xid code, kind of NCCL warning, network interface.
        text: of a log line; untrusted, cleaned and cut, to be shown and never to be obeyed.
    """

    signal: Signal
    phase: Phase
    value: float
    begin_ns: int
    end_ns: int
    samples: int = 1
    rank: int = UNKNOWN
    host: str = ""
    device: str = ""
    detail: str = ""
    text: str = ""

    @property
    def seconds(self) -> float:
        """Time that it covers, never 0."""
        return max((self.end_ns - self.begin_ns) / 1e9, 1e-9)


def clean_text(text: str, limit: int = _TEXT_BYTES) -> str:
    """Returns untrusted text in one line of printable characters, cut at ``limit`` of them."""
    short = text[: 4 * limit]
    shown = "".join(c if c.isprintable() else " " for c in short)
    return " ".join(shown.split())[:limit]
