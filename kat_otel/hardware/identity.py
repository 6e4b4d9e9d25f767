"""Names of devices and hosts as different sources write them, made comparable.

A GPU is ``GPU-<uuid>`` to NVML and DCGM, ``<uuid>`` to nvidia_gpu_exporter, a PCI address to the
kernel. CUDA's ordinal is no name: ``CUDA_VISIBLE_DEVICES`` renumbers it, so nothing joins by it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

__all__ = ["device_key", "globally_unique", "hosts_agree", "pci_key", "short_host"]

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_PCI: Final = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-7])?\Z")


def device_key(name: str) -> str:
    """Returns a ``hw.id`` in comparable form: lower case, without the prefix ``GPU-``."""
    return name.strip().lower().removeprefix("gpu-")


def globally_unique(key: str) -> bool:
    """Whether a device key is a uuid; any other ``hw.id`` is unique within its host only."""
    return _UUID.search(key.removeprefix("mig-")) is not None


def pci_key(name: str) -> str:
    """Returns a PCI address as ``0000:3b:00``: domain, bus and device; ``""`` if it is none."""
    found = _PCI.match(name.strip().lower())
    if found is None:
        return ""
    domain, bus, device = found.groups()
    return f"{int(domain, 16):04x}:{bus}:{device}"


def short_host(name: str) -> str:
    """Returns the first label of a host name in lower case; addresses stay whole."""
    lowered = name.strip().lower()
    try:
        ipaddress.ip_address(lowered)
    except ValueError:
        return lowered.partition(".")[0]
    return lowered


def hosts_agree(one: str, other: str) -> bool:
    """Whether two names can be the same host: equal, or one is the other without its domain."""
    one, other = one.strip().lower(), other.strip().lower()
    if one == other:
        return True
    whole = "." in one and "." in other
    return not whole and short_host(one) == short_host(other)
