"""What a kernel's name tells: its family, and whether it is a collective and of which kind.

Names change with every release of NCCL and of the engines, so the table of collectives
is data, can be extended by configuration, and is applied once per distinct name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kat_otel.per_string import PerString
from kat_otel.spans import SpanKind, SpanTable

__all__ = [
    "COLLECTIVES",
    "COPY_KINDS",
    "CollectivePattern",
    "Semantics",
    "classify",
    "family",
    "meanings",
    "semantics",
]


class Semantics(IntEnum):
    """How the ranks of a collective depend on each other."""

    NONE = 0
    """Not a collective."""
    BARRIER = 1
    """Nobody finishes before the last has arrived: all-reduce, all-gather, reduce-scatter."""
    PAIRWISE = 2
    """Ranks wait for their peers only: send/receive, all-to-all, one-sided puts."""


@dataclass(frozen=True, slots=True)
class CollectivePattern:
    """One row of the table: names that ``pattern`` finds (searched, case-insensitively)."""

    pattern: str
    semantics: Semantics


COLLECTIVES: tuple[CollectivePattern, ...] = (
    # Pairwise first: these names also carry the library's prefix.
    CollectivePattern(
        r"nccl\w*(SendRecv|_Send|_Recv|AllToAll)|\bncclKernel_SendRecv", Semantics.PAIRWISE
    ),
    CollectivePattern(
        r"\b(ncclDevKernel|ncclKernel|ncclSymk?DevKernel|ncclSymKernel)\w*_", Semantics.BARRIER
    ),
    CollectivePattern(r"\brccl\w*(SendRecv|AllToAll)", Semantics.PAIRWISE),
    CollectivePattern(r"\brccl\w*Kernel|msccl\w*[Kk]ernel|\bmscclpp", Semantics.BARRIER),
    CollectivePattern(
        r"multimem_(all_reduce|all_gather|reduce_scatter|one_shot)", Semantics.BARRIER
    ),
    CollectivePattern(r"(one|two)_shot_all_?reduce|symm_mem\w*all_?reduce", Semantics.BARRIER),
    CollectivePattern(
        r"cross_device_reduce_|custom_?all_?reduce|vllm::\w*all_?reduce", Semantics.BARRIER
    ),
    CollectivePattern(
        r"quick_?(all_?)?reduce|allreduce_prototype_twoshot|quickreduce::", Semantics.BARRIER
    ),
    CollectivePattern(
        r"allreduce_fusion_kernel|trtllm_\w*allreduce|lamport\w*kernel|oneshotAllreduce|twoshotAllreduce|"
        r"userbuffers_|moe_?finalize_?allreduce",
        Semantics.BARRIER,
    ),
    CollectivePattern(r"aiter::\w*(allreduce|reduce_scatter|all_gather)", Semantics.BARRIER),
    CollectivePattern(
        r"deep_ep::|\bdeepep|\bep_(dispatch|combine)|pplx\w*(dispatch|combine)|moe_?all_?to_?all|mori\w*(dispatch|combine)",
        Semantics.PAIRWISE,
    ),
    CollectivePattern(
        r"nvshmem\w*(barrier|sync|allreduce|reduce|broadcast|fcollect)", Semantics.BARRIER
    ),
    CollectivePattern(r"nvshmem\w*(put|get|alltoall|signal)", Semantics.PAIRWISE),
    CollectivePattern(r"\b(SendRecv|all_?to_?allv?)\b", Semantics.PAIRWISE),
    CollectivePattern(r"^(all_?reduce|all_?gather|reduce_?scatter)(_|\b)", Semantics.BARRIER),
)


COPY_KINDS = {
    1: "HtoD", 2: "DtoH", 3: "HtoA", 4: "AtoH", 5: "AtoA", 6: "AtoD", 7: "DtoA", 8: "DtoD",
    9: "HtoH", 10: "PtoP", 11: "UVM HtoD", 12: "UVM DtoH", 13: "UVM DtoD",
}  # fmt: skip
"""From where to where CUPTI says that a copy went: its ``copyKind``, as Nsight Systems keeps it."""


@lru_cache(maxsize=16)
def _compiled(
    extra: tuple[CollectivePattern, ...],
) -> tuple[tuple[re.Pattern[str], Semantics], ...]:
    table = (*extra, *COLLECTIVES)
    return tuple((re.compile(row.pattern, re.IGNORECASE), row.semantics) for row in table)


def semantics(name: str, extra: Sequence[CollectivePattern] = ()) -> Semantics:
    """Returns how ranks depend on each other in the kernel ``name``; ``extra`` rows go first."""
    return _semantics(name, tuple(extra))


@lru_cache(maxsize=65536)  # the same few hundred names come with every step
def _semantics(name: str, extra: tuple[CollectivePattern, ...]) -> Semantics:
    for pattern, meaning in _compiled(extra):
        if pattern.search(name):
            return meaning
    return Semantics.NONE


@lru_cache(maxsize=65536)
def family(name: str) -> str:
    """Returns the kernel's name without its template and call arguments and without ``void``.

    Ranks may run the same operation with other template arguments (tile sizes chosen by
    autotuning, stages of a pipeline); the family is what they have in common. Names such as
    ``Memcpy HtoD (Pinned -> Device)`` have no arguments and stay whole.
    """
    text = name.strip().removeprefix("void ")
    if text.startswith(("Mem", "mem")):
        return text
    depth = 0
    kept: list[str] = []
    text = text.replace("(anonymous namespace)", "{anonymous}")
    for char in text:
        if char in "<(":
            depth += 1
        elif char in ">)":
            depth = max(0, depth - 1)
        elif depth == 0:
            kept.append(char)
    short = "".join(kept).strip()
    return short or name


def classify(
    table: SpanTable, extra: Sequence[CollectivePattern] = ()
) -> tuple[SpanTable, NDArray[np.uint8]]:
    """Marks the collectives among the kernels, once per distinct name.

    Returns:
        The table with ``kind`` set to COLLECTIVE where the name (or the source) says so, and
        the :class:`Semantics` of every span, uint8 ``(n,)``.
    """
    kernels = (table.kind == SpanKind.KERNEL.value) | (table.kind == SpanKind.COLLECTIVE.value)
    meaning = np.zeros(len(table), dtype=np.uint8)
    meaning[kernels] = meanings(tuple(extra)).of(table.strings, table.name[kernels])
    told = table.kind == SpanKind.COLLECTIVE.value
    told &= meaning == Semantics.NONE.value
    meaning[told] = Semantics.BARRIER  # the source knows a collective whose name we do not
    unmarked = meaning > 0
    unmarked &= table.kind != SpanKind.COLLECTIVE.value
    if not unmarked.any():
        return table, meaning
    return table.with_columns(kind=np.where(unmarked, SpanKind.COLLECTIVE, table.kind)), meaning


@lru_cache(maxsize=16)
def meanings(extra: tuple[CollectivePattern, ...]) -> PerString:
    """Returns the :class:`Semantics` of names, with rows of the table that go first."""
    return PerString(lambda name: int(_semantics(name, extra)))
