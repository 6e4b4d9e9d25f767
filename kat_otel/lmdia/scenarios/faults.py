"""The eleven faults of the benchmark.

The first eight are those of LatencyPrism (arXiv 2601.09258), whose profiler is of the family that
KAT's traces come from, under its names and after its ways of injection. The paper behind KAT has
eleven of its own that are not public: this list is this project's.

Where a program does not say what bounds its kernels (real traces), matrix products are taken to be
bound by the clock and everything else by memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from kat_otel.kernels import Semantics, family
from kat_otel.lmdia.program import Floats, Mask, Program
from kat_otel.lmdia.scenarios.scenario import Edit, Scenario
from kat_otel.spans import SpanKind

__all__ = ["SCENARIOS"]

_PRODUCTS: Final = re.compile(
    r"gemm|cutlass|nvjet|xmma|cublas|matmul|Cijk|bmm|fmha|flash", re.IGNORECASE
)
_TO_OR_FROM_HOST: Final = re.compile(r"HtoD|DtoH|Host", re.IGNORECASE)
_SHARE_PREEMPTED: Final = 0.1
_STALLS: Final = 3
_MS: Final = 1e6
_LONGEST_NS: Final = 5e9


def _host_time(program: Program, row: int, factor: float, rng: np.random.Generator) -> Edit:
    del rng
    cells = _cells(program, row, _calls(program))
    return _edit(
        program,
        cells,
        gap=np.where(cells, np.maximum(program.gap, 0) * factor + np.minimum(program.gap, 0), 0),
        call=program.call * np.where(cells, factor, 1.0),
    )


def _squeezed_host(program: Program, row: int, factor: float, rng: np.random.Generator) -> Edit:
    """Time slices go to a neighbour: every call waits, some much longer than others."""
    cells = _cells(program, row, _calls(program))
    bursts = rng.gamma(2.0, 0.5, len(program))  # mean 1
    more = 1.0 + (factor - 1.0) * bursts
    return _edit(
        program,
        cells,
        gap=np.where(cells, np.maximum(program.gap, 0) * more + np.minimum(program.gap, 0), 0),
        call=program.call * np.where(cells, more, 1.0),
    )


def _slower_clock(program: Program, row: int, factor: float, rng: np.random.Generator) -> Edit:
    del rng
    cells = _cells(program, row, program.compute)
    more = 1.0 + (factor - 1.0) * (1.0 - _bound_by_memory(program))
    return _edit(program, cells, own=program.own * np.where(cells, more, 1.0))


def _slower_memory(program: Program, row: int, factor: float, rng: np.random.Generator) -> Edit:
    del rng
    share = _bound_by_memory(program)
    cells = _cells(program, row, program.compute & (share > 0.05))
    more = 1.0 + (factor - 1.0) * share
    return _edit(program, cells, own=program.own * np.where(cells, more, 1.0))


def _slower_links(program: Program, row: int, factor: float, rng: np.random.Generator) -> Edit:
    """Of a host: what a collective moves within it goes at the pace of its slowest link."""
    del rng
    return _transfers(program, factor, _shared_with(program, row) & ~_across_hosts(program))


def _slower_network(program: Program, row: int, factor: float, rng: np.random.Generator) -> Edit:
    del rng
    return _transfers(program, factor, _shared_with(program, row) & _across_hosts(program))


def _transfers(program: Program, factor: float, chosen: Mask) -> Edit:
    cells = np.where(chosen, program.present, False)
    return _edit(program, cells, own=program.own * np.where(cells, factor, 1.0))


def _queued_copies(program: Program, row: int, wait_ms: float, rng: np.random.Generator) -> Edit:
    """The copy engine is busy with a neighbour's large copies: each copy waits for one of them."""
    cells = _cells(program, row, _host_copies(program))
    waits = wait_ms * _MS * rng.uniform(0.7, 1.3, len(program))
    return _edit(program, cells, own=program.own + np.where(cells, waits, 0.0))


def _paging(program: Program, row: int, stall_ms: float, rng: np.random.Generator) -> Edit:
    return _stalls(program, row, stall_ms, rng, _STALLS)


def _allocator(program: Program, row: int, stall_ms: float, rng: np.random.Generator) -> Edit:
    """No block is large enough: the allocator gives its blocks back and asks the driver anew."""
    return _stalls(program, row, stall_ms, rng, 1)


def _stalls(
    program: Program, row: int, stall_ms: float, rng: np.random.Generator, count: int
) -> Edit:
    calls = np.flatnonzero(_calls(program) & program.present[row])
    chosen = np.zeros(len(program), np.bool_)
    chosen[rng.choice(calls, min(count, len(calls)), replace=False)] = True
    cells = _cells(program, row, chosen)
    return _edit(program, cells, gap=np.where(cells, program.gap + stall_ms * _MS, 0))


def _time_slices(program: Program, row: int, slice_ms: float, rng: np.random.Generator) -> Edit:
    """A tenant's kernels run in between: some of the rank's wait a slice before they go on."""
    kernels = np.flatnonzero(program.compute & program.present[row])
    count = max(_STALLS, round(_SHARE_PREEMPTED * len(kernels)))
    chosen = np.zeros(len(program), np.bool_)
    chosen[rng.choice(kernels, min(count, len(kernels)), replace=False)] = True
    cells = _cells(program, row, chosen)
    return _edit(program, cells, own=program.own + np.where(cells, slice_ms * _MS, 0.0))


def _one_kernel(program: Program, row: int, factor: float, rng: np.random.Generator) -> Edit:
    """One family of kernels, drawn among the five that take longest, on every rank."""
    del row
    families = np.array([family(op.name) for op in program.operations])
    mine = program.compute
    names, index = np.unique(families[mine], return_inverse=True)
    total = np.bincount(index, weights=program.own[:, mine].sum(axis=0))
    longest = names[np.argsort(-total)[:5]]
    chosen = (families == longest[int(rng.integers(len(longest)))]) & mine
    cells = np.where(chosen, program.present, False)
    return _edit(program, cells, own=program.own * np.where(cells, factor, 1.0))


def _edit(
    program: Program,
    cells: Mask,
    *,
    own: Floats | None = None,
    gap: Floats | None = None,
    call: Floats | None = None,
) -> Edit:
    changed = replace(
        program,
        own=program.own if own is None else own,
        gap=program.gap if gap is None else np.where(cells, gap, program.gap),
        call=program.call if call is None else call,
    )
    return Edit(changed, cells)


def _cells(program: Program, row: int, operations: Mask) -> Mask:
    cells = np.zeros_like(program.present)
    cells[row] = operations & program.present[row]
    return cells


def _calls(program: Program) -> Mask:
    return np.array([op.call != "" for op in program.operations], np.bool_)


def _host_copies(program: Program) -> Mask:
    return np.array(
        [
            op.kind == SpanKind.MEMCPY and bool(_TO_OR_FROM_HOST.search(op.name))
            for op in program.operations
        ],
        np.bool_,
    )


def _bound_by_memory(program: Program) -> Floats:
    """Share of each operation's time that goes with memory bandwidth, ``(n,)``."""
    known = np.array([op.memory_share for op in program.operations])
    guess = np.array([0.1 if _PRODUCTS.search(op.name) else 0.8 for op in program.operations])
    return np.where(np.isnan(known), guess, known)


def _shared_with(program: Program, row: int) -> Mask:
    """Collectives that this rank takes part in, bool ``(n,)``."""
    waits = np.array([op.semantics != Semantics.NONE for op in program.operations], np.bool_)
    return waits & program.present[row]


def _across_hosts(program: Program) -> Mask:
    hosts = np.array([r.host for r in program.resources])
    distinct = [np.unique(hosts[program.present[:, i]]).size for i in range(len(program))]
    return np.array(distinct) > 1


def _computes(program: Program, row: int) -> bool:
    return bool((program.compute & program.present[row]).any())


def _launches(program: Program, row: int) -> bool:
    return bool((_calls(program) & program.present[row]).any())


def _copies(program: Program, row: int) -> bool:
    return bool((_host_copies(program) & program.present[row]).any())


def _linked(program: Program, row: int) -> bool:
    return bool((_shared_with(program, row) & ~_across_hosts(program)).any())


def _networked(program: Program, row: int) -> bool:
    return bool((_shared_with(program, row) & _across_hosts(program)).any())


SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="cpu_compute_squeeze_out",
            text="a neighbour saturates the host's vector units: calls wait for time slices",
            edit=_squeezed_host,
            applies=_launches,
            place="rank",
            kinds=("late_launch", "stall"),
            component="host_cpu",
            candidates=("host_cpu", "host_memory", "software"),
            causes=("steal", "cgroup"),
            most=200.0,
            unit="x host time",
        ),
        Scenario(
            name="cpu_frequency_reduction",
            text="the host's CPU clock is clamped: every call takes longer",
            edit=_host_time,
            applies=_launches,
            place="rank",
            kinds=("late_launch", "stall"),
            component="host_cpu",
            candidates=("host_cpu", "host_memory", "software"),
            causes=("cpu_clock",),
            most=12.0,
            unit="x host time",
        ),
        Scenario(
            name="gpu_instability",
            text="the GPU's clock is locked low, by heat or by power",
            edit=_slower_clock,
            applies=_computes,
            place="rank",
            kinds=("slow_rank", "slow_kernel"),
            component="gpu_clock",
            candidates=("gpu_clock", "gpu_power", "gpu_compute"),
            causes=("thermal", "clock_lock"),
            most=20.0,
            unit="x clock period",
        ),
        Scenario(
            name="gpu_memory_squeeze_out_NVLink",
            text="a neighbour's peer copies saturate the links between GPUs of a host",
            edit=_slower_links,
            applies=_linked,
            place="group",
            kinds=("slow_transfer", "regression"),
            component="nvlink",
            candidates=("nvlink", "pcie", "nic"),
            causes=("nvlink_traffic",),
            most=500.0,
            unit="x transfer time",
        ),
        Scenario(
            name="gpu_memory_squeeze_out_PCIe",
            text="a neighbour's copies saturate the link between host and GPU: copies queue",
            edit=_queued_copies,
            applies=_copies,
            place="rank",
            kinds=("slow_copy", "late_launch", "stall"),
            component="pcie",
            candidates=("pcie", "host_memory", "storage"),
            causes=("pcie_traffic",),
            most=_LONGEST_NS / _MS,
            unit="ms a copy",
        ),
        Scenario(
            name="cpu_swap",
            text="memory thrashes: the host thread waits for pages",
            edit=_paging,
            applies=_launches,
            place="rank",
            kinds=("stall", "late_launch"),
            component="host_memory",
            candidates=("host_cpu", "host_memory", "software"),
            causes=("swap",),
            most=_LONGEST_NS / _MS,
            unit="ms a stall",
        ),
        Scenario(
            name="gpu_preemption",
            text="a tenant's kernels take time slices of the GPU",
            edit=_time_slices,
            applies=_computes,
            place="rank",
            kinds=("slow_kernel", "slow_rank"),
            component="gpu_compute",
            candidates=("gpu_compute", "hbm", "software"),
            causes=(),
            most=_LONGEST_NS / _MS,
            unit="ms a slice",
        ),
        Scenario(
            name="gpu_swap",
            text="device memory is fragmented: the allocator frees and asks anew, the host waits",
            edit=_allocator,
            applies=_launches,
            place="rank",
            kinds=("stall", "late_launch"),
            component="software",
            candidates=("host_cpu", "host_memory", "software"),
            causes=("fragmented",),
            most=_LONGEST_NS / _MS,
            unit="ms a stall",
        ),
        Scenario(
            name="nic_congestion",
            text="the network between hosts is congested: what crosses it takes longer",
            edit=_slower_network,
            applies=_networked,
            place="group",
            kinds=("slow_transfer", "regression"),
            component="nic",
            candidates=("nic", "nvlink", "pcie"),
            causes=("nic", "nccl_ib"),
            most=500.0,
            unit="x transfer time",
        ),
        Scenario(
            name="hbm_degradation",
            text="the GPU's memory corrects errors and remaps rows: what reads much takes longer",
            edit=_slower_memory,
            applies=_computes,
            place="rank",
            kinds=("slow_rank", "slow_kernel"),
            component="hbm",
            candidates=("hbm", "gpu_compute", "gpu_clock"),
            causes=("ecc", "xid_ecc"),
            most=50.0,
            unit="x memory time",
        ),
        Scenario(
            name="kernel_regression",
            text="one kernel is slower since an upgrade, on all ranks",
            edit=_one_kernel,
            applies=_computes,
            place="group",
            kinds=("regression",),
            component="software",
            candidates=("software", "gpu_clock", "gpu_power"),
            causes=(),
            most=500.0,
            unit="x kernel time",
        ),
    )
}
"""By name."""
