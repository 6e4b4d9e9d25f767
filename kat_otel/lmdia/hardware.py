"""Metrics and logs of the machines that simulated workers run on, as exporters send them.

Consistent with the traces of the same fault: the sick part shows its own sign from the onset on,
and everybody else shows what waiting does to a healthy machine: GPUs that wait draw less power
and clock down. Names are those of dcgm-exporter, hostmetrics and node_exporter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args

import numpy as np
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from kat_otel import semconv
from kat_otel.otlp.wire import attribute
from kat_otel.spans import Resource
from kat_otel.verdict import Component

__all__ = ["CAUSES", "COMPONENT_OF", "Cause", "Machines", "Request"]

Cause = Literal[
    "healthy",
    "thermal",
    "clock_lock",
    "power_cap",
    "power_brake",
    "ecc",
    "xid_ecc",
    "pcie_width",
    "pcie_replays",
    "nvlink",
    "xid_nvlink",
    "nic",
    "nccl_ib",
    "steal",
    "cgroup",
    "swap",
    "disk",
    "cpu_clock",
    "pcie_traffic",
    "nvlink_traffic",
    "fragmented",
]
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

COMPONENT_OF: Final[dict[Cause, Component]] = {
    "thermal": "gpu_clock",
    "clock_lock": "gpu_clock",
    "power_cap": "gpu_power",
    "power_brake": "gpu_power",
    "ecc": "hbm",
    "xid_ecc": "hbm",
    "pcie_width": "pcie",
    "pcie_replays": "pcie",
    "nvlink": "nvlink",
    "xid_nvlink": "nvlink",
    "nic": "nic",
    "nccl_ib": "nic",
    "steal": "host_cpu",
    "cgroup": "host_cpu",
    "swap": "host_memory",
    "disk": "storage",
    "cpu_clock": "host_cpu",
    "pcie_traffic": "pcie",
    "nvlink_traffic": "nvlink",
    "fragmented": "software",
}
"""What each cause is called in a report."""

_CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_BITS: Final[dict[Cause, int]] = {
    "thermal": 0x40,
    "clock_lock": 0x02,
    "power_cap": 0x04,
    "power_brake": 0x80,
}
_SLOW_CLOCK: Final[dict[Cause, float]] = {
    "thermal": 0.7,
    "clock_lock": 0.75,
    "power_cap": 0.8,
    "power_brake": 0.5,
}
_LOG_LINES: Final[dict[Cause, str]] = {
    "xid_ecc": "NVRM: Xid (PCI:{pci}): 94, pid=1234, name=python3, Contained ECC error",
    "xid_nvlink": "NVRM: Xid (PCI:{pci}): 74, pid=1234, name=python3, NVLink: fatal error",
    "fragmented": "(VllmWorker rank={index} pid=1234) torch.OutOfMemoryError: CUDA out of memory. "
    "Tried to allocate 1.50 GiB. GPU {device} has a total capacity of 79.10 GiB of which 0.90 GiB "
    "is free. 9.2 GiB is reserved by PyTorch but unallocated. Retrying after empty_cache",
    "nccl_ib": "{host}:1234:1250 [3] NCCL WARN NET/IB : Got completion from peer 10.0.0.7<51212> "
    "with status=12 opcode=0 len=0 vendor err 129 (Send)",
}


class Request(NamedTuple):
    """An export request: what it carries, and its bytes."""

    signal: Literal["metrics", "logs"]
    data: bytes


@dataclass(frozen=True)
class Machines:
    """The GPUs and hosts of workers, one of which falls sick.

    Attributes:
        workers: as in the traces; ``hardware_id`` and ``host`` are what readings join by.
        cause: what happens.
        culprit: index into ``workers`` of the one it happens to.
        begin_ns, onset_ns, end_ns: Unix ns: first sample, fault, last sample.
        period_s: between two samples.
        seed: of the noise.
        over_ns: when the fault is over, Unix ns; it lasts if None.
        others: more of those it happens to.
    """

    workers: Sequence[Resource]
    cause: Cause
    culprit: int
    begin_ns: int
    onset_ns: int
    end_ns: int
    period_s: float = 5.0
    seed: int = 0
    over_ns: int | None = None
    others: tuple[int, ...] = ()

    @property
    def _culprits(self) -> frozenset[int]:
        return frozenset({self.culprit, *self.others})

    def _lasted(self, at: int) -> float:
        """Seconds that the fault has lasted until then: what counters have grown by."""
        until = at if self.over_ns is None else min(at, self.over_ns)
        return max(0, until - self.onset_ns) / 1e9

    def _there(self, at: int) -> bool:
        return at >= self.onset_ns and (self.over_ns is None or at < self.over_ns)

    def requests(self) -> Iterator[Request]:
        """Yields the requests in order of time: one of metrics a host and sample, logs at once."""
        rng = np.random.default_rng([self.seed, CAUSES.index(self.cause)])
        period = round(self.period_s * 1e9)
        hosts = sorted({worker.host for worker in self.workers})
        told = False
        for at in range(self.begin_ns, self.end_ns + 1, period):
            if at >= self.onset_ns and not told and self.cause in _LOG_LINES:
                told = True
                yield self._log(at)
            for host in hosts:
                yield Request("metrics", self._sample(host, at, rng))

    def pci(self, index: int) -> str:
        """Returns the PCI address of a worker's GPU as the kernel writes it."""
        return f"0000:{0x10 + index:02x}:00"

    def _sick(self, cause: Cause, index: int, at: int) -> bool:
        return self.cause == cause and index in self._culprits and self._there(at)

    def _sample(self, host: str, at: int, rng: np.random.Generator) -> bytes:
        request = ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        group.resource.attributes.append(attribute(semconv.HOST_NAME, host))
        out = _Writer(group.scope_metrics.add().metrics, at, self.begin_ns)
        for index, worker in enumerate(self.workers):
            if worker.host == host:
                self._gpu(out, index, worker, at, rng)
        mine = [i for i, worker in enumerate(self.workers) if worker.host == host]
        self._host(out, not self._culprits.isdisjoint(mine), at, rng)
        return request.SerializeToString()

    def _gpu(
        self, out: _Writer, index: int, worker: Resource, at: int, rng: np.random.Generator
    ) -> None:
        out.labels = {
            "UUID": worker.hardware_id,
            "gpu": str(worker.device),
            "pci_bus_id": f"0000{self.pci(index)}.0".upper(),
            "Hostname": worker.host,
        }
        culprit = index in self._culprits
        waits = self._there(at) and self.cause != "healthy" and not culprit
        sick = self._there(at) and culprit
        since = self._lasted(at) if culprit else 0.0
        clock = 1980.0 * (0.9 if waits else _SLOW_CLOCK.get(self.cause, 1.0) if sick else 1.0)
        out.gauge("DCGM_FI_DEV_SM_CLOCK", round(clock + float(rng.normal(0, 5))))
        out.gauge("DCGM_FI_DEV_MEM_CLOCK", 2619)
        out.gauge("DCGM_FI_DEV_POWER_USAGE", (350 if waits else 620) + float(rng.normal(0, 10)))
        hot = 22 if self._sick("thermal", index, at) else 0
        out.gauge("DCGM_FI_DEV_GPU_TEMP", round(64 + hot + float(rng.normal(0, 1))))
        out.gauge("DCGM_FI_DEV_GPU_UTIL", 97)
        out.gauge("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", _BITS.get(self.cause, 0) if sick else 0)
        width = 4 if self._sick("pcie_width", index, at) else 16
        out.gauge("DCGM_FI_DEV_PCIE_LINK_WIDTH", width)
        replays = 40 * since if self.cause == "pcie_replays" else 0
        out.counter("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", 3 + replays)
        crc = 25 * since if self.cause == "nvlink" else 0
        out.counter("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", 1 + crc)
        out.counter("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", crc / 5)
        out.counter("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", crc // 100)
        ecc = since if self.cause == "ecc" else 0.0
        remapped = float(self.cause == "ecc" and culprit and at >= self.onset_ns)
        out.counter("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", 2 + 30 * ecc)
        out.counter("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", remapped)
        out.counter("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", remapped)
        self._traffic(out, worker, at, rng, waits=waits)

    def _traffic(
        self, out: _Writer, worker: Resource, at: int, rng: np.random.Generator, *, waits: bool
    ) -> None:
        """What the links carry: the instance's own, less while it waits, and a neighbour's."""
        own = 0.6 if waits else 1.0
        host = self.workers[self.culprit].host
        here = self._there(at) and worker.host == host
        copies = 2.2e10 if here and self.cause == "pcie_traffic" else 0.0
        peers = 3.1e11 if here and self.cause == "nvlink_traffic" else 0.0
        for way in ("TX", "RX"):
            pcie = (4e8 * own + copies) * float(rng.normal(1, 0.05))
            link = (2.5e10 * own + peers) * float(rng.normal(1, 0.05))
            out.gauge(f"DCGM_FI_PROF_PCIE_{way}_BYTES", pcie)
            out.gauge(f"DCGM_FI_PROF_NVLINK_{way}_BYTES", link)

    def _host(self, out: _Writer, sick: bool, at: int, rng: np.random.Generator) -> None:
        up = (at - self.begin_ns) / 1e9
        since = self._lasted(at) if sick else 0.0

        def grows(cause: Cause, rate: float) -> float:
            return rate * since if self.cause == cause else 0.0

        for cpu in range(2):
            out.labels = {"cpu": f"cpu{cpu}", "state": "steal"}
            out.counter("system.cpu.time", 0.002 * up + grows("steal", 0.4))
            out.labels = {"cpu": f"cpu{cpu}", "state": "idle"}
            out.counter("system.cpu.time", 0.5 * up)
            out.labels = {"cpu": f"{cpu}"}
            clamped = sick and self.cause == "cpu_clock" and self._there(at)
            hertz = (1.2e9 if clamped else 3.0e9) * float(rng.normal(1, 0.01))
            out.gauge("node_cpu_scaling_frequency_hertz", hertz)
        out.labels = {"container": "server"}
        out.counter("container_cpu_cfs_throttled_seconds_total", grows("cgroup", 0.3))
        out.labels = {"type": "major"}
        out.counter("system.paging.faults", 0.2 * up + grows("swap", 900))
        out.counter("system.paging.operations", grows("swap", 1500))
        out.labels = {}
        out.counter("node_netstat_Tcp_RetransSegs", 0.5 * up + grows("nic", 300))
        out.labels = {"device": "mlx5_0", "port": "1"}
        out.counter("node_infiniband_symbol_error_total", grows("nic", 20))
        out.labels = {"device": "nvme0n1"}
        out.counter("system.disk.io_time", 0.03 * up + grows("disk", 0.93))
        out.labels = {}
        out.counter("node_pressure_io_waiting_seconds_total", 0.002 * up + grows("disk", 0.4))
        out.gauge("system.cpu.load_average.1m", 12 + float(rng.normal(0, 0.5)))

    def _log(self, at: int) -> Request:
        worker = self.workers[self.culprit]
        request = ExportLogsServiceRequest()
        group = request.resource_logs.add()
        group.resource.attributes.append(attribute(semconv.HOST_NAME, worker.host))
        record = group.scope_logs.add().log_records.add(time_unix_nano=at)
        line = _LOG_LINES[self.cause].format(
            pci=self.pci(self.culprit),
            host=worker.host,
            index=worker.rank,
            device=worker.device,
        )
        record.body.string_value = line
        return Request("logs", request.SerializeToString())


class _Writer:
    """Adds points of one moment to the metrics of one host."""

    def __init__(self, metrics: Any, at: int, start: int) -> None:
        self._metrics = metrics
        self._at = at
        self._start = start
        self._named: dict[str, Metric] = {}
        self.labels: dict[str, str] = {}

    def gauge(self, name: str, value: float) -> None:
        point = self._metric(name).gauge.data_points.add(time_unix_nano=self._at, as_double=value)
        point.attributes.extend(attribute(k, v) for k, v in self.labels.items())

    def counter(self, name: str, value: float) -> None:
        total = self._metric(name).sum
        total.is_monotonic = True
        total.aggregation_temporality = _CUMULATIVE
        point = total.data_points.add(
            time_unix_nano=self._at, start_time_unix_nano=self._start, as_double=value
        )
        point.attributes.extend(attribute(k, v) for k, v in self.labels.items())

    def _metric(self, name: str) -> Metric:
        metric = self._named.get(name)
        if metric is None:
            made: Metric = self._metrics.add(name=name)
            metric = self._named[name] = made
        return metric
