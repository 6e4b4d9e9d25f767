"""Which rank a process is, of how many, and where it stands in the parallel layout.

The engine's own word comes first (:mod:`kat_otel.instrumentation.engines`), then torch's default
process group, then the launcher's environment. Modules of torch are looked at where the program
has imported them; none is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kat_otel.spans import UNKNOWN

__all__ = ["Who", "current_device", "from_environment", "launched", "torch_store", "torch_world"]


@dataclass(frozen=True, slots=True)
class Who:
    """A worker, as far as it can be told.

    Attributes:
        rank, world_size: in the instance: all ranks that share collectives.
        local_rank: on the host; ``UNKNOWN`` if not said.
        device: CUDA's ordinal in this process.
        tp, pp, dp, ep: coordinates.
        engine, version, model: what runs.
        replica: tells replicas apart that share one environment; usually ``""``.
        attributes: more for the resource.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = UNKNOWN
    device: int = UNKNOWN
    tp: int = UNKNOWN
    pp: int = UNKNOWN
    dp: int = UNKNOWN
    ep: int = UNKNOWN
    engine: str = "pytorch"
    version: str = ""
    model: str = ""
    replica: str = ""
    attributes: Mapping[str, str | int] = field(default_factory=dict[str, str | int])


@dataclass(frozen=True, slots=True)
class _Launcher:
    """Variables of one launcher; the first whose rank is set is believed."""

    rank: str
    world: tuple[str, ...]
    local: tuple[str, ...]
    needs: str = ""  # set only where the launcher really started this very process


_LAUNCHERS: Final = (
    _Launcher("KAT_RANK", ("KAT_WORLD_SIZE", "WORLD_SIZE"), ("LOCAL_RANK",)),
    _Launcher("RANK", ("WORLD_SIZE",), ("LOCAL_RANK",)),  # torchrun, deepspeed
    _Launcher("OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    _Launcher("MV2_COMM_WORLD_RANK", ("MV2_COMM_WORLD_SIZE",), ("MV2_COMM_WORLD_LOCAL_RANK",)),
    _Launcher("PMI_RANK", ("PMI_SIZE",), ("MPI_LOCALRANKID",)),
    # Slurm sets its variables in a batch script too; a step id says that srun started this one.
    _Launcher(
        "SLURM_PROCID",
        ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
        ("SLURM_LOCALID",),
        "SLURM_STEP_ID",
    ),
    _Launcher("PMIX_RANK", ("PMIX_SIZE",), ("PMIX_LOCAL_RANK",)),
)


def _number(environment: Mapping[str, str], names: tuple[str, ...]) -> int:
    for name in names:
        text = environment.get(name, "").strip()
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return int(text)
    return UNKNOWN


def launched(environment: Mapping[str, str]) -> bool:
    """Returns whether a launcher of many processes started this one."""
    return any(_found(one, environment) for one in _LAUNCHERS)


def _found(one: _Launcher, environment: Mapping[str, str]) -> bool:
    if one.needs and not environment.get(one.needs):
        return False
    return _number(environment, (one.rank,)) != UNKNOWN


def from_environment(environment: Mapping[str, str]) -> Who:
    """Returns what launcher and torch say; a process of its own if they say nothing.

    A rank beyond its world size is not believed.
    """
    world = torch_world()
    for one in _LAUNCHERS:
        if not _found(one, environment):
            continue
        rank, size = _number(environment, (one.rank,)), _number(environment, one.world)
        local = _number(environment, one.local)
        if world is not None and one.rank != "KAT_RANK":
            rank, size = world
        if rank < max(size, 1):
            return Who(rank, max(size, 1), local, current_device(local))
    rank, size = world or (0, 1)
    return Who(rank, size, UNKNOWN, current_device(UNKNOWN))


def torch_world() -> tuple[int, int] | None:
    """Returns rank and size of torch's default process group; None without one."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank()), int(distributed.get_world_size())


def torch_store() -> Any:
    """Returns the store of torch's default process group; None without one.

    Only the ranks of that group reach it: those that share collectives, and no replica.
    """
    if torch_world() is None:
        return None
    c10d: Any = sys.modules.get("torch.distributed.distributed_c10d")
    get = getattr(c10d, "_get_default_store", None)
    return None if get is None else get()


def current_device(local_rank: int) -> int:
    """Returns CUDA's ordinal of this process: torch's, where it runs, else the local rank."""
    cuda: Any = sys.modules.get("torch.cuda")
    if cuda is not None and cuda.is_initialized():  # asking earlier would make a context
        return int(cuda.current_device())
    return local_rank
