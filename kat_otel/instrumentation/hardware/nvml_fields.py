"""NVML's numbered fields, many in one call, and the metric that each becomes.

Units from ``nvml.h``: performance-policy and clock-event times in ns, NVLink throughput in KiB,
bytes of NVLink 5 in bytes. NVLink 5 (Blackwell) knows neither replays nor CRC errors of links;
its counts of recoveries and of erroneous packets stand for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from kat_otel.instrumentation.hardware.metrics import Kind, Measure

__all__ = ["FIELDS", "Field", "link_fields", "number_of"]

_ALL_LINKS: Final = 0xFFFFFFFF
"""A ``scopeId`` of UINT_MAX: the sum over the links."""
_READ: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""By ``nvmlValueType_t``: the member of the union that holds it."""
_DL: Final = "NVLINK_ERROR_DL_"
_NVLINK5: Final = "NVLINK_COUNT_"


class Field(NamedTuple):
    """A field of ``nvmlDeviceGetFieldValues``.

    Attributes:
        name: NVML's, without ``NVML_FI_DEV_``.
        metric, kind, unit, attributes: what it becomes.
        scale: factor to that unit.
        scope: the link that it is of.
        instead_of: name and scope of the field without which alone it is asked.
    """

    name: str
    metric: str
    kind: Kind
    unit: str
    attributes: Mapping[str, str | int]
    scale: float = 1
    scope: int = 0
    instead_of: tuple[str, int] | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from the others."""
        return self.name, self.scope

    def measure(self, value: float) -> Measure:
        """Returns the point of a value that was just read."""
        return Measure(self.metric, value * self.scale, self.attributes, self.kind, self.unit)


def number_of(value: Any) -> float:
    """Returns the number in a ``nvmlFieldValue_t``, by its type (``nvmlValueType_t``)."""
    kind = int(value.valueType)
    number: float = getattr(value.value, _READ[kind] if kind < len(_READ) else "ullVal")
    return number


def link_fields(links: Sequence[int]) -> list[Field]:
    """Returns the fields of the active NVLinks, link by link, and of their traffic together."""
    found: list[Field] = []
    for link in links:
        found += (
            _link(_DL + "CRC", "crc", link),
            _link(_DL + "REPLAY", "replay", link),
            _link(_DL + "RECOVERY", "recovery", link),
            _link(_NVLINK5 + "EFFECTIVE_ERRORS", "crc", link, _DL + "CRC"),
            _link(_NVLINK5 + "LINK_RECOVERY_EVENTS", "recovery", link, _DL + "RECOVERY"),
        )
    if not links:
        return found
    for all_links, of_link, way in (
        ("NVLINK_THROUGHPUT_DATA_TX", _NVLINK5 + "XMIT_BYTES", "transmit"),
        ("NVLINK_THROUGHPUT_DATA_RX", _NVLINK5 + "RCV_BYTES", "receive"),
    ):
        said = {"network.io.direction": way}
        found.append(Field(all_links, "hw.gpu.nvlink.io", "sum", "By", said, 1024, _ALL_LINKS))
        found += (
            Field(
                of_link,
                "hw.gpu.nvlink.io",
                "sum",
                "By",
                {**said, "hw.gpu.nvlink.link": link},
                scope=link,
                instead_of=(all_links, _ALL_LINKS),
            )
            for link in links
        )
    return found


def _link(name: str, error: str, link: int, instead_of: str = "") -> Field:
    said = {"error.type": error, "hw.gpu.nvlink.link": link}
    other = (instead_of, link) if instead_of else None
    return Field(name, "hw.gpu.nvlink.errors", "sum", "{error}", said, scope=link, instead_of=other)


def _throttle(name: str, reason: str, instead_of: str = "") -> Field:
    said = {"hw.gpu.throttle.reason": reason}
    other = (instead_of, 0) if instead_of else None
    return Field(name, "hw.gpu.throttle.time", "sum", "s", said, 1e-9, instead_of=other)


_SW_THERMAL: Final = "CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN"

FIELDS: Final = (
    Field("ECC_SBE_VOL_TOTAL", "hw.errors", "sum", "{error}",
          {"hw.type": "gpu", "error.type": "corrected"}),
    Field("ECC_DBE_VOL_TOTAL", "hw.errors", "sum", "{error}",
          {"hw.type": "gpu", "error.type": "uncorrected"}),
    Field("MEMORY_TEMP", "hw.temperature", "gauge", "Cel",
          {"hw.type": "temperature", "hw.sensor_location": "memory"}),
    Field("PCIE_REPLAY_COUNTER", "hw.gpu.pcie.replays", "sum", "{replay}", {}),
    Field("PCIE_COUNT_CORRECTABLE_ERRORS", "hw.gpu.pcie.errors", "sum", "{error}", {}),
    Field("REMAPPED_COR", "hw.gpu.row_remaps", "sum", "{row}", {"error.type": "corrected"}),
    Field("REMAPPED_UNC", "hw.gpu.row_remaps", "sum", "{row}", {"error.type": "uncorrected"}),
    Field("REMAPPED_PENDING", "hw.gpu.row_remap.pending", "gauge", "1", {}),
    Field("REMAPPED_FAILURE", "hw.gpu.row_remap.failed", "gauge", "1", {}),
    _throttle("PERF_POLICY_POWER", "power_cap"),
    _throttle(_SW_THERMAL, "sw_thermal"),
    _throttle("CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN", "hw_thermal"),
    _throttle("CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN", "hw_power_brake"),
    _throttle("PERF_POLICY_THERMAL", "sw_thermal", _SW_THERMAL),  # older drivers
)  # fmt: skip
"""Fields of the GPU itself."""
