"""What the GPU says of itself, by NVML: one reading is a few calls and a list of measures.

A question that this GPU or driver does not answer is left out once and for all. A GPU that is
lost, or a driver that is loaded anew, ends the session; another is begun later. Without a driver
one line of the log says so. Any call may hang in a sick driver: call from a thread that may.

Written for nvidia-ml-py 12.560 to 13.615; units from ``nvml.h``: power in mW, clocks in MHz.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from kat_otel.instrumentation.hardware.gpu_identity import (
    HardwareIdentity,
    hardware_identity,
    load_nvml,
)
from kat_otel.instrumentation.hardware.metrics import Measure
from kat_otel.instrumentation.hardware.nvml_fields import FIELDS, Field, link_fields, number_of

__all__ = ["GpuReader", "HardwareIdentity", "hardware_identity"]

logger: Final = logging.getLogger(__name__)

_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
"""Seconds until a session is begun again: doubled each time, up to the longest."""
_MOST_EVENTS: Final = 64
"""Xids taken in one reading, and different codes counted: a storm must not keep the thread."""
_FIELDS_A_CALL: Final = 64
_PREFIX: Final = "NVML_FI_DEV_"
_NO_INSTANCE: Final = 0xFFFFFFFF

_NEVER: Final = (
    "NOT_SUPPORTED",
    "FUNCTION_NOT_FOUND",
    "NO_PERMISSION",
    "INVALID_ARGUMENT",
    "ARGUMENT_VERSION_MISMATCH",
    "DEPRECATED",
)
"""Answers after which a question is not asked again."""
_OVER: Final = (
    "UNINITIALIZED",
    "GPU_IS_LOST",
    "DRIVER_NOT_LOADED",
    "RESET_REQUIRED",
    "LIB_RM_VERSION_MISMATCH",
    "GPU_NOT_FOUND",
)
"""Answers after which the session is worth nothing."""

_REASONS: Final = (
    (0x02, "clocks_setting"),
    (0x04, "power_cap"),
    (0x08, "hw_slowdown"),
    (0x20, "sw_thermal"),
    (0x40, "hw_thermal"),
    (0x80, "hw_power_brake"),
)
"""``nvmlClocksEventReason*``: why clocks are lower; idle (0x01) is no throttling."""


class GpuReader:
    """A session with NVML about one GPU; used by one thread.

    Args:
        hw_id: the GPU's or MIG device's uuid.
        pci_bus_id: asked for where no uuid is known.

    Attributes:
        counts: readings, questions left out, errors and sessions, since the start.
    """

    def __init__(self, hw_id: str, pci_bus_id: str = "") -> None:
        self._hw_id = hw_id
        self._pci_bus_id = pci_bus_id
        self._nvml: Any = None
        self._gpu: Any = None  # of the whole GPU, where hw_id is a slice of it
        self._events: Any = None
        self._instance = _NO_INSTANCE
        self._retry_at = 0.0
        self._wait = _FIRST_WAIT
        self._told = ""
        self._left_out: set[object] = set()
        self._fields: list[Field] = []
        self._last: dict[tuple[str, int], float] = {}
        self._since_ns = 0
        self._read_ns = 0
        self._xids: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()

    def read(self) -> list[Measure]:
        """Returns what the GPU says now; nothing while there is no session."""
        if self._gpu is None and not self._begin():
            return []
        now_ns = time.time_ns()
        try:
            measures = [*self._questions(), *self._numbered(), *self._xid_counts(now_ns)]
        except self._nvml.NVMLError as error:
            self._end(f"the session with NVML ended: {error}")
            return []
        self._read_ns = now_ns
        self.counts["readings"] += 1
        if self._told:
            logger.info("metrics of the GPU %s are read again", self._hw_id or self._pci_bus_id)
        self._wait, self._told = _FIRST_WAIT, ""
        return [
            measure._replace(
                time_ns=measure.time_ns or now_ns,
                start_ns=self._since_ns if measure.kind == "sum" else 0,
            )
            for measure in measures
        ]

    def close(self) -> None:
        """Ends the session."""
        if self._gpu is not None:
            self._end("")

    # --- the session -----------------------------------------------------------------------

    def _begin(self) -> bool:
        if time.monotonic() < self._retry_at or not (self._hw_id or self._pci_bus_id):
            return False
        try:
            self._nvml = load_nvml()
        except ImportError as error:
            self._later(f"nvidia-ml-py is not installed ({error})")
            return False
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                self._later("there is no NVIDIA driver (libnvidia-ml.so.1 is not found)")
            else:
                self._later(f"NVML does not start: {error}")
            return False
        try:
            self._open()
        except nvml.NVMLError as error:
            self._end(f"NVML does not know the GPU {self._hw_id or self._pci_bus_id}: {error}")
            return False
        self.counts["sessions"] += 1
        self._since_ns = self._read_ns = time.time_ns()
        return True

    def _open(self) -> None:
        nvml = self._nvml
        if self._hw_id:
            gpu = nvml.nvmlDeviceGetHandleByUUID(self._hw_id)
        else:
            gpu = nvml.nvmlDeviceGetHandleByPciBusId(self._pci_bus_id)
        self._instance = _NO_INSTANCE
        if self._hw_id.startswith("MIG-"):
            self._instance = int(nvml.nvmlDeviceGetGpuInstanceId(gpu))
            gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(gpu)
        self._left_out, self._last = set(), {}
        self._gpu = gpu
        self._fields = [*FIELDS, *link_fields(self._links())]
        self._left_out |= {f.key for f in self._fields if not hasattr(nvml, _PREFIX + f.name)}
        self._listen()

    def _links(self) -> list[int]:
        """Numbers of the NVLinks that are up; those beyond the last are refused."""
        nvml, links = self._nvml, list[int]()
        for link in range(nvml.NVML_NVLINK_MAX_LINKS):
            try:
                if nvml.nvmlDeviceGetNvLinkState(self._gpu, link):
                    links.append(link)
            except nvml.NVMLError as error:
                if self._is(error, _OVER):
                    raise
                break
        return links

    def _listen(self) -> None:
        nvml = self._nvml
        self._events = None
        events: Any = None
        try:
            events = nvml.nvmlEventSetCreate()
            nvml.nvmlDeviceRegisterEvents(self._gpu, nvml.nvmlEventTypeXidCriticalError, events)
            self._events = events
        except nvml.NVMLError as error:
            if events is not None:
                nvml.nvmlEventSetFree(events)
            if self._is(error, _OVER):
                raise
            self.counts["left out"] += 1
            logger.info("Xids of the GPU are not told by NVML (%s); the kernel log has them", error)

    def _end(self, why: str) -> None:
        nvml = self._nvml
        events, self._gpu, self._events = self._events, None, None
        try:
            if events is not None:
                nvml.nvmlEventSetFree(events)
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:  # the driver may be gone with all it held
            logger.debug("NVML: %s", error)
        if why:
            self._later(why)

    def _later(self, why: str) -> None:
        """Waits longer each time, and tells each reason once."""
        self.counts["failures"] += 1
        self._retry_at = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, _LONGEST_WAIT)
        if why != self._told:
            self._told = why
            logger.warning("%s: no metrics of the GPU for now, all else goes on", why)

    def _is(self, error: Any, names: tuple[str, ...]) -> bool:
        numbers = (getattr(self._nvml, f"NVML_ERROR_{name}", None) for name in names)
        return error.value in numbers

    # --- questions -------------------------------------------------------------------------

    def _questions(self) -> Iterator[Measure]:
        for question in _QUESTIONS:
            if question in self._left_out:
                continue
            try:
                yield from question(self._nvml, self._gpu)
            except self._nvml.NVMLError as error:
                self._failed(question, error)

    def _failed(self, question: object, error: Any) -> None:
        if self._is(error, _OVER):
            raise error
        if self._is(error, _NEVER):
            self._left_out.add(question)
            self.counts["left out"] += 1
            logger.debug("NVML, %s: %s; not asked again", question, error)
        else:
            self.counts["errors"] += 1

    def _numbered(self) -> Iterator[Measure]:
        """Fields; a sum that fails after it once came keeps its value: totals must not fall."""
        nvml = self._nvml
        asked = [
            field
            for field in self._fields
            if field.key not in self._left_out
            and (field.instead_of is None or field.instead_of in self._left_out)
        ]
        for begin in range(0, len(asked), _FIELDS_A_CALL):
            some = asked[begin : begin + _FIELDS_A_CALL]
            wanted = [(getattr(nvml, _PREFIX + field.name), field.scope) for field in some]
            failed: Any = None
            values: Sequence[Any] = [None] * len(some)
            try:
                values = nvml.nvmlDeviceGetFieldValues(self._gpu, wanted)
            except nvml.NVMLError as error:
                failed = error
            for field, value in zip(some, values, strict=True):
                if failed is None and value.nvmlReturn == nvml.NVML_SUCCESS:
                    self._last[field.key] = number_of(value)
                    yield field.measure(self._last[field.key])
                elif field.key not in self._last:
                    self._failed(field.key, failed or nvml.NVMLError(value.nvmlReturn))
                elif failed is not None and self._is(failed, _OVER):
                    raise failed
                elif field.kind == "sum":
                    yield field.measure(self._last[field.key])

    def _xid_counts(self, now_ns: int) -> Iterator[Measure]:
        """Xids by code since the start; a code that is new was 0 when we last looked."""
        new = list(self._waiting())
        for code in new:
            if code in self._xids or len(self._xids) < _MOST_EVENTS:
                if code not in self._xids:
                    yield _xid(code, 0)._replace(time_ns=min(self._read_ns, now_ns - 1))
                self._xids[code] += 1
        for code, count in self._xids.items():
            yield _xid(code, count)

    def _waiting(self) -> Iterator[int]:
        nvml = self._nvml
        for _ in range(_MOST_EVENTS if self._events is not None else 0):
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError as error:
                if self._is(error, _OVER):
                    raise
                if error.value != nvml.NVML_ERROR_TIMEOUT:
                    self.counts["errors"] += 1
                return
            slices = {int(event.gpuInstanceId), self._instance}
            if len(slices - {_NO_INSTANCE}) < 2:  # not of another slice of the GPU
                yield int(event.eventData)


def _xid(code: int, count: int) -> Measure:
    return Measure("hw.gpu.xid", count, {"hw.gpu.xid": code}, "sum", "{event}")


def _clocks(nvml: Any, gpu: Any) -> Iterator[Measure]:
    for name, clock in (("sm", nvml.NVML_CLOCK_SM), ("memory", nvml.NVML_CLOCK_MEM)):
        mhz = nvml.nvmlDeviceGetClockInfo(gpu, clock)
        yield Measure("hw.gpu.clock", mhz * 10**6, {"hw.gpu.clock": name}, unit="Hz")


def _reasons(nvml: Any, gpu: Any) -> Iterator[Measure]:
    try:
        bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except nvml.NVMLError_FunctionNotFound:  # drivers before 535
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    for bit, reason in _REASONS:
        on = int(bool(bits & bit))
        yield Measure("hw.gpu.throttle.active", on, {"hw.gpu.throttle.reason": reason}, unit="1")


def _power(nvml: Any, gpu: Any) -> Iterator[Measure]:
    watts = nvml.nvmlDeviceGetPowerUsage(gpu) / 1000
    yield Measure("hw.power", watts, {"hw.type": "gpu"}, unit="W")


def _power_limit(nvml: Any, gpu: Any) -> Iterator[Measure]:
    watts = nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000
    yield Measure("hw.gpu.power.limit", watts, unit="W")


def _temperature(nvml: Any, gpu: Any) -> Iterator[Measure]:
    # the older of two functions: CUDA 14 is to drop it, drivers before 570 know no other
    if hasattr(nvml, "nvmlDeviceGetTemperature"):
        celsius = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
    else:
        celsius = nvml.nvmlDeviceGetTemperatureV(gpu, nvml.NVML_TEMPERATURE_GPU)
    said = {"hw.type": "temperature", "hw.sensor_location": "gpu"}
    yield Measure("hw.temperature", celsius, said, unit="Cel")


def _pcie_width(nvml: Any, gpu: Any) -> Iterator[Measure]:
    lanes = nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu)
    yield Measure("hw.gpu.pcie.width", lanes, unit="{lane}")


def _pcie_generation(nvml: Any, gpu: Any) -> Iterator[Measure]:
    generation = nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu)
    yield Measure("hw.gpu.pcie.generation", generation, unit="1")


def _utilization(nvml: Any, gpu: Any) -> Iterator[Measure]:
    share = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100
    yield Measure("hw.gpu.utilization", share, {"hw.gpu.task": "general"}, unit="1")


_QUESTIONS: Final[tuple[Callable[[Any, Any], Iterator[Measure]], ...]] = (
    _clocks,
    _reasons,
    _power,
    _power_limit,
    _temperature,
    _pcie_width,
    _pcie_generation,
    _utilization,
)
"""What has a function of its own; each may be left out alone."""
