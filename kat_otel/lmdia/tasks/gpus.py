"""Data-sheet rates of the GPUs whose rooflines the tasks stand under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["GPUS", "Gpu"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """What a GPU can do at most.

    Attributes:
        name: as the data sheet spells it, without the maker.
        hbm: memory, bytes a ns.
        flop_16, flop_8, flop_4: dense floating-point operations a ns with 16, 8 and 4 bits;
            what the device has no units for runs at the next wider rate.
        link: GPU to GPU within a host, one direction, bytes a ns.
        nic: network a GPU, one direction, bytes a ns.
        pcie: host to device, bytes a ns.
        clock_mhz: highest SM clock.
    """

    name: str
    hbm: float
    flop_16: float
    flop_8: float
    flop_4: float
    link: float
    nic: float
    pcie: float
    clock_mhz: int


GPUS: Mapping[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("A100-80GB", 2039, 312e3, 312e3, 312e3, 300, 25, 32, 1410),
        Gpu("H100-SXM", 3350, 989e3, 1979e3, 1979e3, 450, 50, 64, 1980),
        Gpu("H200-SXM", 4800, 989e3, 1979e3, 1979e3, 450, 50, 64, 1980),
        Gpu("B200", 8000, 2250e3, 4500e3, 9000e3, 900, 50, 64, 1965),
        Gpu("MI300X", 5300, 1307e3, 2615e3, 2615e3, 448, 50, 64, 2100),
    )
}
"""The five, by name. HBM, dense tensor throughput, GPU-to-GPU and PCIe rates are the makers' data
sheets'; the network is one 200 Gbit/s (A100) or 400 Gbit/s adapter a GPU."""
