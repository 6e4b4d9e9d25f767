"""Which metric says which signal: one table, from the names that exporters really use.

Looked up, not guessed, in November 2026:

- ``hw.*``: OpenTelemetry semantic conventions for hardware (development status, v1.43). What the
  conventions lack (clocks, throttling, PCIe, NVLink, row remaps, Xid) stands here under
  ``hw.gpu.*`` as KAT-OTel's own workers send it.
- ``DCGM_FI_*``, ``DCGM_EXP_*``: dcgm-exporter's ``etc/default-counters.csv`` and DCGM's
  ``dcgm_fields.h``; bits of the event reasons from ``DCGM_CLOCKS_EVENT_REASON_*`` (those of NVML).
- ``nvidia_smi_*``: nvidia_gpu_exporter's ``docs/METRICS.md`` and its recorded H200 output.
- ``system.*``, ``process.*``: hostmetrics receiver 0.155, ``documentation.md`` of its scrapers.
- ``node_*``: Prometheus node_exporter; ``container_*``: the kubelet's cAdvisor.

Prometheus counters are listed as the exporters name them; the collector's prometheus receiver
keeps those names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from kat_otel.hardware.readings import Signal

__all__ = ["CLOCK_EVENT_BITS", "METRICS", "Kind", "Metric"]

Kind = Literal["level", "flag", "counter", "bits", "last_code", "seen_at"]
"""``level`` a value of now; ``flag`` on if above 0; ``counter`` grows, whatever its OTLP type;
``bits`` clock event reasons; ``last_code`` the last Xid, kept for ever; ``seen_at`` the Unix
seconds of an event."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How the points of one metric are read.

    Attributes:
        signal: what they say.
        kind: how.
        scale: factor to the signal's unit.
        only: attributes that a point must have, with their values; else it says something else.
        detail: attribute that tells several series of one device or host apart.
    """

    signal: Signal
    kind: Kind = "level"
    scale: float = 1.0
    only: Mapping[str, str] = field(default_factory=dict[str, str])
    detail: str = ""


CLOCK_EVENT_BITS: Final[tuple[tuple[int, Signal], ...]] = (
    (0x02, "throttle_setting"),
    (0x04, "throttle_power_cap"),
    (0x08, "throttle_hw_slowdown"),
    (0x20, "throttle_thermal"),  # by software
    (0x40, "throttle_thermal"),  # by hardware
    (0x80, "throttle_power_brake"),
)
"""Bits of ``DCGM_FI_DEV_CLOCKS_EVENT_REASONS``; idle (0x01) is no throttling."""

_NS: Final = 1e-9
_HZ: Final = 1e-6  # to MHz


def _one(
    signal: Signal, kind: Kind = "level", scale: float = 1.0, detail: str = "", **only: str
) -> Metric:
    return Metric(signal, kind, scale, {k.replace("__", "."): v for k, v in only.items()}, detail)


def _by(
    attribute: str, signals: Mapping[str, Signal], kind: Kind, scale: float = 1.0, **only: str
) -> tuple[Metric, ...]:
    others = {k.replace("__", "."): v for k, v in only.items()}
    return tuple(
        Metric(signal, kind, scale, {attribute: value, **others})
        for value, signal in signals.items()
    )


def _pressure(whose: str) -> tuple[Metric, ...]:
    """Stall times: of tasks that waited (some), and of when no task got on (full)."""
    signals: Mapping[str, Signal] = {
        "cpu": "cpu_pressure",
        "memory": "memory_pressure",
        "io": "io_pressure",
    }
    return tuple(
        Metric(
            signal,
            "counter",
            only={"kat.pressure.resource": resource, "kat.pressure.kind": kind},
            detail=f"{whose} {kind}".strip(),
        )
        for resource, signal in signals.items()
        for kind in ("some", "full")
    )


_THROTTLE: Final[Mapping[str, Signal]] = {
    "sw_thermal": "throttle_thermal",
    "hw_thermal": "throttle_thermal",
    "power_cap": "throttle_power_cap",
    "hw_power_brake": "throttle_power_brake",
    "hw_slowdown": "throttle_hw_slowdown",
    "clocks_setting": "throttle_setting",
}

_OPENTELEMETRY: Final[Mapping[str, tuple[Metric, ...]]] = {
    "hw.errors": (
        _one("ecc_corrected", "counter", hw__type="gpu", error__type="corrected"),
        _one("ecc_uncorrected", "counter", hw__type="gpu", error__type="uncorrected"),
        _one("memory_errors", "counter", hw__type="memory"),
        _one("net_errors", "counter", detail="hw.name", hw__type="network"),
    ),
    "hw.power": (_one("power", hw__type="gpu"),),
    "hw.gpu.power": (_one("power"),),
    "hw.temperature": (
        _one("temperature", hw__type="gpu"),
        _one("temperature", hw__type="temperature", hw__sensor_location="gpu"),
        _one("memory_temperature", hw__type="temperature", hw__sensor_location="memory"),
    ),
    "hw.gpu.utilization": (
        _one("gpu_utilization", hw__gpu__task="general"),
        _one("gpu_utilization", hw__gpu__task=""),
    ),
    # KAT-OTel's own, where the conventions have no name
    "hw.gpu.clock": _by("hw.gpu.clock", {"sm": "sm_clock", "memory": "memory_clock"}, "level", _HZ),
    "hw.gpu.power.limit": (_one("power_limit"),),
    "hw.gpu.throttle.time": tuple(
        # one series a reason: software and hardware may slow down for heat at the same time
        Metric(signal, "counter", only={"hw.gpu.throttle.reason": reason}, detail=reason)
        for reason, signal in _THROTTLE.items()
    ),
    "hw.gpu.throttle.active": _by("hw.gpu.throttle.reason", _THROTTLE, "flag"),
    "hw.gpu.pcie.replays": (_one("pcie_replays", "counter"),),
    "hw.gpu.pcie.errors": (_one("pcie_errors", "counter"),),
    "hw.gpu.pcie.width": (_one("pcie_width"),),
    "hw.gpu.pcie.generation": (_one("pcie_generation"),),
    "hw.gpu.nvlink.errors": _by(
        "error.type",
        {"crc": "nvlink_crc", "replay": "nvlink_replays", "recovery": "nvlink_recoveries"},
        "counter",
    ),
    "hw.gpu.nvlink.io": (_one("nvlink_bytes", "counter"),),
    "hw.gpu.row_remaps": (_one("row_remaps", "counter"),),
    "hw.gpu.row_remap.pending": (_one("row_remap_pending", "flag"),),
    "hw.gpu.row_remap.failed": (_one("row_remap_failure", "flag"),),
    "hw.gpu.xid": (_one("xid", "counter", detail="hw.gpu.xid"),),
}

_DCGM: Final[Mapping[str, tuple[Metric, ...]]] = {
    "DCGM_FI_DEV_SM_CLOCK": (_one("sm_clock"),),
    "DCGM_FI_DEV_MEM_CLOCK": (_one("memory_clock"),),
    "DCGM_FI_DEV_GPU_TEMP": (_one("temperature"),),
    "DCGM_FI_DEV_MEMORY_TEMP": (_one("memory_temperature"),),
    "DCGM_FI_DEV_POWER_USAGE": (_one("power"),),
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": (_one("power_limit"),),
    "DCGM_FI_DEV_POWER_MGMT_LIMIT": (_one("power_limit", detail="management"),),
    "DCGM_FI_DEV_GPU_UTIL": (_one("gpu_utilization", scale=0.01),),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": (_one("throttle_thermal", "bits"),),
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": (_one("throttle_thermal", "bits"),),  # its older name
    "DCGM_EXP_CLOCK_EVENTS_COUNT": _by("clock_event", _THROTTLE, "flag"),
    "DCGM_FI_DEV_THERMAL_VIOLATION": (_one("throttle_thermal", "counter", _NS),),
    "DCGM_FI_DEV_POWER_VIOLATION": (_one("throttle_power_cap", "counter", _NS),),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_POWER_CAP_NS": (
        _one("throttle_power_cap", "counter", _NS),
    ),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN_NS": (
        _one("throttle_thermal", "counter", _NS, "software"),
    ),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN_NS": (
        _one("throttle_thermal", "counter", _NS, "hardware"),
    ),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN_NS": (
        _one("throttle_power_brake", "counter", _NS),
    ),
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": (_one("pcie_replays", "counter"),),
    "DCGM_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS": (_one("pcie_errors", "counter"),),
    "DCGM_FI_DEV_PCIE_LINK_WIDTH": (_one("pcie_width"),),
    "DCGM_FI_DEV_PCIE_LINK_GEN": (_one("pcie_generation"),),
    "DCGM_FI_PROF_PCIE_TX_BYTES": (_one("pcie_rate", detail="sent"),),
    "DCGM_FI_PROF_PCIE_RX_BYTES": (_one("pcie_rate", detail="received"),),
    "DCGM_FI_PROF_NVLINK_TX_BYTES": (_one("nvlink_rate", detail="sent"),),
    "DCGM_FI_PROF_NVLINK_RX_BYTES": (_one("nvlink_rate", detail="received"),),
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": (_one("nvlink_crc", "counter", 1.0, "flit"),),
    "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL": (_one("nvlink_crc", "counter", 1.0, "data"),),
    "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": (_one("nvlink_replays", "counter"),),
    "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": (_one("nvlink_recoveries", "counter"),),
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": (_one("ecc_uncorrected", "counter"),),
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": (_one("ecc_corrected", "counter"),),
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": (_one("row_remaps", "counter", 1.0, "u"),),
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": (_one("row_remaps", "counter", 1.0, "c"),),
    "DCGM_FI_DEV_ROW_REMAP_PENDING": (_one("row_remap_pending", "flag"),),
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": (_one("row_remap_failure", "flag"),),
    "DCGM_FI_DEV_XID_ERRORS": (_one("xid", "last_code"),),
}

_NVIDIA_SMI: Final[Mapping[str, tuple[Metric, ...]]] = {
    f"nvidia_smi_{name}": metrics
    for name, metrics in {
        "clocks_current_sm_clock_hz": (_one("sm_clock", scale=_HZ),),
        "clocks_current_memory_clock_hz": (_one("memory_clock", scale=_HZ),),
        "temperature_gpu": (_one("temperature"),),
        "temperature_memory": (_one("memory_temperature"),),
        "power_draw_watts": (_one("power"),),
        "enforced_power_limit_watts": (_one("power_limit"),),
        "utilization_gpu_ratio": (_one("gpu_utilization"),),
        "clocks_event_reasons_active": (_one("throttle_thermal", "bits"),),
        "clocks_throttle_reasons_active": (_one("throttle_thermal", "bits"),),
        "clocks_event_reasons_counters_sw_power_cap_seconds": (
            _one("throttle_power_cap", "counter"),
        ),
        "clocks_event_reasons_counters_hw_power_brake_slowdown_seconds": (
            _one("throttle_power_brake", "counter"),
        ),
        "clocks_event_reasons_counters_hw_thermal_slowdown_seconds": (
            _one("throttle_thermal", "counter", 1.0, "hardware"),
        ),
        "clocks_event_reasons_counters_sw_thermal_slowdown_seconds": (
            _one("throttle_thermal", "counter", 1.0, "software"),
        ),
        "pcie_link_width_current": (_one("pcie_width"),),
        "pcie_link_gen_current": (_one("pcie_generation"),),
        "ecc_errors_uncorrected_volatile_total": (_one("ecc_uncorrected", "counter"),),
        "ecc_errors_corrected_volatile_total": (_one("ecc_corrected", "counter"),),
        "remapped_rows_uncorrectable": (_one("row_remaps", "counter", 1.0, "u"),),
        "remapped_rows_correctable": (_one("row_remaps", "counter", 1.0, "c"),),
        "remapped_rows_pending": (_one("row_remap_pending", "flag"),),
        "remapped_rows_failure": (_one("row_remap_failure", "flag"),),
        "xid_last_timestamp_seconds": (_one("xid", "seen_at", detail="xid"),),
    }.items()
}

_HOST: Final[Mapping[str, tuple[Metric, ...]]] = {
    "system.cpu.time": (_one("cpu_steal", "counter", state="steal"),),
    "system.cpu.utilization": (_one("cpu_steal", state="steal"),),
    "system.cpu.frequency": (_one("cpu_clock", scale=_HZ),),
    "system.cpu.load_average.1m": (_one("cpu_run_queue"),),
    "system.paging.faults": (_one("page_faults", "counter", type="major"),),
    "system.paging.operations": (_one("swap", "counter", type="major"),),
    "system.network.dropped": (_one("net_drops", "counter", detail="device"),),
    "system.network.errors": (_one("net_errors", "counter", detail="device"),),
    "system.disk.io_time": (_one("disk_busy", "counter", detail="device"),),
    # Prometheus node_exporter
    "node_cpu_seconds_total": (_one("cpu_steal", "counter", mode="steal"),),
    "node_cpu_scaling_frequency_hertz": (_one("cpu_clock", scale=_HZ),),
    "node_load1": (_one("cpu_run_queue"),),
    "node_pressure_cpu_waiting_seconds_total": (_one("cpu_pressure", "counter"),),
    "node_pressure_memory_waiting_seconds_total": (_one("memory_pressure", "counter"),),
    "node_pressure_io_waiting_seconds_total": (_one("io_pressure", "counter"),),
    "node_vmstat_pgmajfault": (_one("page_faults", "counter"),),
    "node_vmstat_pswpin": (_one("swap", "counter", 1.0, "in"),),
    "node_vmstat_pswpout": (_one("swap", "counter", 1.0, "out"),),
    "node_edac_correctable_errors_total": (_one("memory_errors", "counter", 1.0, "corrected"),),
    "node_edac_uncorrectable_errors_total": (_one("memory_errors", "counter", 1.0, "uncorrected"),),
    "node_netstat_Tcp_RetransSegs": (_one("net_retransmits", "counter"),),
    "node_network_receive_drop_total": (_one("net_drops", "counter", detail="device"),),
    "node_network_receive_errs_total": (_one("net_errors", "counter", detail="device"),),
    "node_network_transmit_errs_total": (_one("net_errors", "counter", detail="device"),),
    "node_infiniband_symbol_error_total": (_one("ib_errors", "counter", detail="device"),),
    "node_infiniband_link_error_recovery_total": (_one("ib_errors", "counter", detail="device"),),
    "node_infiniband_link_downed_total": (_one("ib_errors", "counter", detail="device"),),
    "node_infiniband_port_receive_errors_total": (_one("ib_errors", "counter", detail="device"),),
    "node_infiniband_port_transmit_wait_total": (_one("ib_wait", "counter", detail="device"),),
    "node_disk_io_time_seconds_total": (_one("disk_busy", "counter", detail="device"),),
    # the kubelet's cAdvisor
    "container_cpu_cfs_throttled_seconds_total": (
        _one("cgroup_throttled", "counter", detail="container"),
    ),
    # KAT-OTel's own workers, of their process and cgroup, and one of them of the host. The names
    # are not the receivers': two counters under one name would be taken for one that restarts.
    "kat.process.cpu.run_queue.time": (_one("cpu_pressure", "counter", detail="process"),),
    "kat.process.cpu.frequency": (_one("cpu_clock", scale=_HZ, detail="process"),),
    "kat.process.cgroup.throttled.time": (_one("cgroup_throttled", "counter", detail="process"),),
    "kat.process.cgroup.pressure.time": _pressure("process"),
    "kat.process.memory.swapped": (_one("swapped", scale=1 / 2**20, detail="process"),),
    "process.paging.faults": (
        _one("page_faults", "counter", detail="process", system__paging__fault__type="major"),
    ),
    "kat.host.cpu.steal.time": (_one("cpu_steal", "counter"),),
    "kat.host.cpu.run_queue": (_one("cpu_run_queue"),),
    "kat.host.paging.operations": (_one("swap", "counter", detail="system.paging.direction"),),
    "kat.host.pressure.time": _pressure(""),
}

METRICS: Final[Mapping[str, tuple[Metric, ...]]] = MappingProxyType(
    {**_OPENTELEMETRY, **_DCGM, **_NVIDIA_SMI, **_HOST}
)
"""Metric name -> how its points are read. The first entry whose ``only`` a point meets is used.

A ``detail`` that no point has as an attribute is the detail itself."""
