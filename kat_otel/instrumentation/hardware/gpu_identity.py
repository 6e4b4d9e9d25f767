"""Which GPU a CUDA ordinal stands for, without initialising CUDA.

CUDA's rules (programming guide, "CUDA Environment Variables"): ``CUDA_VISIBLE_DEVICES`` is a list
of indices or UUIDs, which may be cut short; it ends at the first entry that names no device.
Indices count in the order of ``CUDA_DEVICE_ORDER``. Under MIG a process sees one MIG device alone.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

__all__ = ["UNKNOWN_GPU", "HardwareIdentity", "hardware_identity", "load_nvml"]

logger: Final = logging.getLogger(__name__)


class HardwareIdentity(NamedTuple):
    """A GPU, or a MIG device of one.

    Attributes:
        hw_id: NVML's uuid, ``GPU-...`` or ``MIG-...``; ``""`` if it cannot be told.
        pci_bus_id: of the GPU, as NVML writes it: ``00000000:3B:00.0``; or ``""``.
        name: what its maker calls it, or ``""``.
    """

    hw_id: str
    pci_bus_id: str
    name: str


UNKNOWN_GPU: Final = HardwareIdentity("", "", "")


class _Found(NamedTuple):
    identity: HardwareIdentity
    handle: Any


def load_nvml() -> Any:
    """Returns NVIDIA's module ``pynvml``, which finds the driver's library when it is asked.

    Raises:
        ImportError: nvidia-ml-py is not installed.
    """
    return importlib.import_module("pynvml")


def hardware_identity(device: int, environment: Mapping[str, str]) -> HardwareIdentity:
    """Returns which GPU the process's CUDA device is; :data:`UNKNOWN_GPU` if that is not sure.

    A wrong name would join another GPU's readings to this rank: so nothing is guessed. Where a
    whole UUID stands in ``CUDA_VISIBLE_DEVICES``, it is the answer even without a driver.

    Args:
        device: CUDA's ordinal in this process.
        environment: of the process, for ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER``.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = None if visible is None else [entry.strip() for entry in visible.split(",")]
    if device < 0:
        return UNKNOWN_GPU
    try:
        nvml = load_nvml()
    except ImportError:
        return _as_named(names, device)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        logger.debug("NVML: %s", error)
        return _as_named(names, device)
    try:
        return _identify(nvml, device, names, environment.get("CUDA_DEVICE_ORDER", ""))
    except nvml.NVMLError as error:
        logger.warning(
            "NVML cannot tell which GPU CUDA device %d is (%s): metrics of the GPU will not join",
            device,
            error,
        )
        return _as_named(names, device)
    finally:
        nvml.nvmlShutdown()


def _as_named(names: list[str] | None, device: int) -> HardwareIdentity:
    if names is None or device >= len(names):
        return UNKNOWN_GPU
    whole = len("GPU-") + 36
    named = [name for name in names[: device + 1] if name.startswith(("GPU-", "MIG-"))]
    if len(named) <= device or len(names[device]) < whole:
        return UNKNOWN_GPU
    return HardwareIdentity(names[device], "", "")


def _identify(nvml: Any, device: int, names: list[str] | None, order: str) -> HardwareIdentity:
    handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
    found = (_found(nvml, handle) for handle in handles)
    gpus = sorted(found, key=lambda gpu: gpu.identity.pci_bus_id)
    by_index = names is None or any(name.lstrip("-").isdecimal() for name in names)
    if by_index and order != "PCI_BUS_ID" and len({gpu.identity.name for gpu in gpus}) > 1:
        logger.warning(
            "GPUs of several kinds, and CUDA counts the fastest first: which one CUDA device %d is "
            "cannot be told; set CUDA_DEVICE_ORDER=PCI_BUS_ID or name UUIDs",
            device,
        )
        return UNKNOWN_GPU
    if names is None:
        names = [str(index) for index in range(len(gpus))]
    seen: list[HardwareIdentity] = []
    for name in names:
        one = _named(nvml, name, gpus)
        if one is None or one in seen:  # CUDA sees what stands before it, or nothing
            break
        seen.append(one)
    sliced = [one for one in seen if one.hw_id.startswith("MIG-")]
    if sliced:  # CUDA shows one alone; of a mixture nothing says which
        seen = sliced[:1] if len(sliced) == len(seen) else []
    return seen[device] if device < len(seen) else UNKNOWN_GPU


def _named(nvml: Any, name: str, gpus: list[_Found]) -> HardwareIdentity | None:
    if name.isdecimal():
        index = int(name)
        return _sliced(nvml, gpus[index]) if index < len(gpus) else None
    if name.startswith("MIG-"):
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(name)
        except nvml.NVMLError:  # no such device: CUDA sees nothing from here on
            return None
        parent = _found(nvml, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)).identity
        return parent._replace(hw_id=nvml.nvmlDeviceGetUUID(handle))
    alike = [gpu for gpu in gpus if gpu.identity.hw_id.startswith(name)]
    return _sliced(nvml, alike[0]) if name.startswith("GPU-") and len(alike) == 1 else None


def _found(nvml: Any, handle: Any) -> _Found:
    name: str = nvml.nvmlDeviceGetName(handle)
    bus: bytes | str = nvml.nvmlDeviceGetPciInfo(handle).busId
    bus_id = bus.decode("ascii", "replace") if isinstance(bus, bytes) else bus
    return _Found(HardwareIdentity(nvml.nvmlDeviceGetUUID(handle), bus_id, name), handle)


def _sliced(nvml: Any, gpu: _Found) -> HardwareIdentity:
    """The GPU, or its first MIG device where it is cut into such: CUDA takes that one."""
    try:
        if not nvml.nvmlDeviceGetMigMode(gpu.handle)[0]:
            return gpu.identity
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu.handle)):
            try:
                one = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle, index)
            except nvml.NVMLError:  # numbers may have gaps
                continue
            return gpu.identity._replace(hw_id=nvml.nvmlDeviceGetUUID(one))
    except nvml.NVMLError:  # not supported: a GPU that knows no MIG
        pass
    return gpu.identity
