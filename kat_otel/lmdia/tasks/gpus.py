"""Data-sheet rates of the GPUs whose rooflines the tasks stand under."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Gpu"]


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
