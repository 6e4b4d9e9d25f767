"""Cases: a fault played, recorded, judged and joined with what the machines said.

Every part is the product's own: the simulator behind ``kat demo`` or a real trace makes the spans,
the detector judges them, the hardware store reads what exporters would send. Only the fault is
known before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from kat_otel.adapt.tasks import Task, TraceFault
from kat_otel.analyzer.context import Context, context_of
from kat_otel.config import HardwareConfig
from kat_otel.hardware import HardwareStore, Reading
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.hardware import Cause as MachineCause
from kat_otel.lmdia.hardware import Machines
from kat_otel.lmdia.inject import (
    Injected,
    host_stall,
    late_launches,
    slow_collectives,
    slow_kernels,
    slow_rank,
)
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.real import RANKS, groups
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import Resource
from kat_otel.ttad import analyze
from kat_otel.ttad.components import refine
from kat_otel.verdict import Incident

__all__ = ["RANKS", "SIGNS", "Base", "Case", "fleet", "from_traces", "play", "simulated"]

_LAYERS: Final = 8
_SECOND: Final = 1_000_000_000
_BEGIN: Final = 1_767_225_600 * _SECOND  # 2026-01-01
_ONSET: Final = _BEGIN + 120 * _SECOND
_LASTS: Final = 50 * _SECOND
_PERIOD_S: Final = 10.0
_LONG_ENOUGH_NS: Final = 8_000
"""Kernels that are made longer are this long at least: a change that a clock can show."""
_BASELINE_SEED: Final = 99

SIGNS: Final[dict[MachineCause, frozenset[str]]] = {
    "thermal": frozenset({"throttle_thermal", "sm_clock", "temperature"}),
    "clock_lock": frozenset({"throttle_setting", "sm_clock"}),
    "power_cap": frozenset({"throttle_power_cap", "sm_clock"}),
    "power_brake": frozenset({"throttle_power_brake", "sm_clock"}),
    "ecc": frozenset({"ecc_corrected", "ecc_uncorrected", "row_remaps"}),
    "xid_ecc": frozenset({"xid"}),
    "pcie_width": frozenset({"pcie_width"}),
    "pcie_replays": frozenset({"pcie_replays"}),
    "nvlink": frozenset({"nvlink_crc", "nvlink_replays", "nvlink_recoveries"}),
    "xid_nvlink": frozenset({"xid"}),
    "nic": frozenset({"net_retransmits", "ib_errors"}),
    "nccl_ib": frozenset({"nccl_warning"}),
    "steal": frozenset({"cpu_steal"}),
    "cgroup": frozenset({"cgroup_throttled"}),
    "swap": frozenset({"page_faults", "swap"}),
    "disk": frozenset({"disk_busy", "io_pressure"}),
}
"""What each sick part shows: what a second one adds to the readings of the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A healthy step that faults are put into.

    Attributes:
        name: where it comes from.
        program: of the ranks of :func:`fleet`.
        real: whether kernels and times are a real trace's.
    """

    name: str
    program: Program
    real: bool


@dataclass(frozen=True, slots=True)
class Case:
    """An incident with the truth about it.

    Attributes:
        ranks: who was really to blame; nobody in particular if empty.
    """

    task: Task
    base: str
    seed: int
    incident: Incident
    context: Context
    ranks: tuple[int, ...]


def simulated() -> Base:
    """Returns the step that ``kat demo`` simulates, on two hosts."""
    return Base("simulated", decode_program(replace(LLAMA_70B, layers=_LAYERS), fleet()), False)


def from_traces(folder: Path) -> list[Base]:
    """Returns healthy groups made of the real traces in a folder, those that are there.

    Semi-synthetic: kernels, order and times are real, the differences between ranks are not.
    """
    return [Base(name, group, real=True) for name, group in groups(folder, fleet()).items()]


@functools.cache
def fleet() -> tuple[Resource, ...]:
    """Returns eight workers on two hosts, four GPUs each."""
    return tuple(
        replace(worker, host=f"node-{worker.rank // 4}", device=worker.rank % 4)
        for worker in workers(RANKS, instance="adapt")
    )


def play(base: Base, tasks: Sequence[Task], seed: int) -> Iterable[Case]:
    """Yields a case for each task of one fault: the traces are judged once.

    A task gives no case where the detector does not find the fault as it was injected: there is
    nothing to explain then, and a wrong incident would be a wrong label.

    Args:
        base: what runs.
        tasks: with one fault in common.
        seed: of rank, size and noise.
    """
    fault = tasks[0].fault
    rng = np.random.default_rng([seed, len(base.name)])
    injected = _inject(base.program, fault, rng)
    found = _judged(base, injected, seed)
    if found is None:
        return
    incident, context = found
    culprit = incident.culprit.ranks[0] if incident.culprit.ranks else int(rng.integers(RANKS))
    for task in tasks:
        told = refine(incident, _readings(task.shown, culprit))
        yield Case(task, base.name, seed, told, context, injected.fault.ranks)


def _inject(program: Program, fault: TraceFault, rng: np.random.Generator) -> Injected:
    rank = int(rng.integers(RANKS))
    at = int(rng.integers(len(program) // 10, len(program) // 2))
    if fault == "slow_rank":
        return slow_rank(program, rank, float(rng.integers(8, 40)))
    if fault == "slow_kernel":
        long = np.flatnonzero(program.compute & (program.own[0] >= _LONG_ENOUGH_NS))
        chosen = rng.choice(long, int(rng.integers(1, 4)), replace=False)
        return slow_kernels(program, rank, chosen.tolist(), float(rng.uniform(1.7, 3.0)))
    if fault == "late_launch":
        return late_launches(program, rank, float(rng.uniform(1.5e6, 6e6)), [at])
    if fault == "stall":
        return host_stall(program, rank, float(rng.uniform(2e7, 2e8)), at)
    return slow_collectives(program, float(rng.uniform(1.5, 3.0)))


def _judged(base: Base, injected: Injected, seed: int) -> tuple[Incident, Context] | None:
    """Returns the costliest incident if it is the one that was injected."""
    fault = injected.fault
    table = record(
        Group(base.program, seed),
        [0],
        program_at=lambda _: injected.program,
        zero_unix_ns=_ONSET,
    )
    # Without a culprit among the ranks only a healthy recording tells.
    usual = None if fault.ranks else record(Group(base.program, _BASELINE_SEED), [0])
    report = analyze(table, baseline=usual)
    found = report.incidents[0] if report.incidents else None
    if found is None or found.kind not in fault.kinds:
        return None
    if fault.ranks and tuple(found.culprit.ranks) != fault.ranks:
        return None
    # One step was recorded; the fault lasts as long as the machines show it.
    lasting = msgspec.structs.replace(found, first_seen=_ONSET, last_seen=_ONSET + _LASTS)
    return lasting, context_of(report)


def _readings(shown: Sequence[MachineCause], culprit: int) -> list[Reading]:
    """Returns what the store has of the first sign, with the signals of the others put in."""
    found: list[Reading] = []
    for sign in shown:
        more = _of_machines(sign, culprit)
        if not found:
            found = list(more)
            continue
        signals = SIGNS[sign]
        found = [r for r in found if r.signal not in signals]
        found += [r for r in more if r.signal in signals]
    return found


@functools.lru_cache(maxsize=RANKS * 32)
def _of_machines(sign: MachineCause, culprit: int) -> tuple[Reading, ...]:
    """Returns what the store knows of an incident in which one rank's machine shows a sign."""
    members = fleet()
    store = HardwareStore(HardwareConfig())
    machines = Machines(
        members, sign, culprit, _BEGIN, _ONSET, _ONSET + _LASTS + 10 * _SECOND, _PERIOD_S
    )
    for request in machines.requests():
        store.add(request.signal, request.data)
    return tuple(
        store.lookup(
            instance=members[0].instance,
            hosts=[m.host for m in members],
            hardware_ids=[m.hardware_id for m in members],
            ranks=[m.rank for m in members],
            begin_ns=_ONSET,
            end_ns=_ONSET + _LASTS,
        )
    )
