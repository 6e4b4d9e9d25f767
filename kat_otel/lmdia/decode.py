"""A decode step of a dense transformer under tensor parallelism, made from its architecture.

Synthetic: kernel names are those of vLLM on H100, durations come from bytes and operations
over the device's data-sheet rates (a roofline with an efficiency and a floor), so that the
proportions between kernels are those of a real decode. The spread around them comes
from :mod:`kat_otel.lmdia.noise`, fitted to real traces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kat_otel.kernels import Semantics
from kat_otel.lmdia import kernel_names as kernels
from kat_otel.lmdia.program import HostOperation, Operation, Program
from kat_otel.spans import UNKNOWN, Resource, SpanKind

__all__ = ["LLAMA_70B", "Architecture", "decode_program", "workers"]

COMPUTE_STREAM = 7
MODEL_GROUP = "tp"

# NVIDIA H100 SXM data sheet: 3.35 TB/s HBM3, 989 TFLOP/s dense BF16, 450 GB/s NVLink a direction.
_HBM_BYTES_PER_NS = 3350.0
_FLOP_PER_NS = 989_000.0
_NVLINK_BYTES_PER_NS = 450.0
_EFFICIENCY = 0.75
_KERNEL_FLOOR_NS = 2_200.0
_ALL_REDUCE_FLOOR_NS = 9_000.0

_LAUNCH_LATENCY_NS = 6_500.0
_DISPATCH_NS = 900.0
_CALL_NS = 3_600.0
_GAP_NS = 2_000.0
_LAYER_GAP_NS = 4_000.0
_INPUT_GAP_NS = 60_000.0
_SETTLE_NS = 5_000.0


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shape of a dense transformer, and of the batch it decodes.

    Attributes:
        hidden, intermediate, heads, kv_heads, head_size, vocabulary: of the model.
        layers: number of layers (fewer than the real model's keep a demonstration light).
        batch: sequences in the batch, one token each.
        context: mean tokens of KV cache per sequence.
    """

    hidden: int = 8192
    intermediate: int = 28672
    heads: int = 64
    kv_heads: int = 8
    head_size: int = 128
    vocabulary: int = 128_256
    layers: int = 80
    batch: int = 64
    context: int = 2048


LLAMA_70B = Architecture()
"""Shapes of Llama 3 70B as its configuration publishes them."""


def workers(count: int, *, instance: str = "", host: str = "node-0") -> tuple[Resource, ...]:
    """Returns ``count`` tensor-parallel workers of one host, a GPU each."""
    return tuple(
        Resource(
            rank=rank,
            world_size=count,
            instance=instance,
            device=rank,
            host=host,
            hardware_id=f"GPU-{host}-{rank}",
            tp=rank,
            pp=0,
            dp=0,
            source=f"simulated worker {rank}",
        )
        for rank in range(count)
    )


def decode_program(architecture: Architecture, resources: tuple[Resource, ...]) -> Program:
    """Returns one decode step, every rank alike and without noise."""
    step = _Step(architecture, len(resources))
    step.inputs()
    for layer in range(architecture.layers):
        step.layer(layer)
    step.sampling()
    return step.program(resources)


class _Step:
    """Collects the operations of a step in host order."""

    def __init__(self, architecture: Architecture, ranks: int) -> None:
        self.model = architecture
        self.ranks = ranks
        self.hosts: list[HostOperation] = []
        self.operations: list[Operation] = []
        self.gaps: list[float] = []
        self.owns: list[float] = []

    def inputs(self) -> None:
        self._host("prepare_inputs")
        nbytes = self.model.batch * 8
        for index in range(3):
            self._copy(
                "Memcpy HtoD (Pinned -> Device)",
                nbytes,
                _INPUT_GAP_NS if index == 0 else _LAYER_GAP_NS,
            )
        self._host("model.embed_tokens")
        self._kernel(
            kernels.GATHER,
            nbytes=2.0 * self.model.batch * self.model.hidden,
        )
        self._all_reduce()

    def layer(self, index: int) -> None:
        m, tp = self.model, self.ranks
        heads, kv_heads = m.heads // tp, max(1, m.kv_heads // tp)
        query_key_value = (heads + 2 * kv_heads) * m.head_size
        activations = 2.0 * m.batch * m.hidden

        layer = self._host(f"model.layers.{index}")
        self._host("self_attn", layer)
        self._kernel(kernels.RMS_NORM, nbytes=4 * activations, gap=_LAYER_GAP_NS)
        self._gemm(kernels.QKV_GEMM, m.hidden, query_key_value)
        self._kernel(
            kernels.ROTARY,
            nbytes=2.0 * 2 * m.batch * query_key_value,
        )
        self._kernel(
            kernels.CACHE_WRITE,
            nbytes=4.0 * m.batch * kv_heads * m.head_size,
        )
        self._kernel(
            kernels.ATTENTION,
            nbytes=2.0 * 2 * m.batch * m.context * kv_heads * m.head_size,
            grid=f"{m.batch},{kv_heads},1",
        )
        self._gemm(kernels.OUTPUT_GEMM, heads * m.head_size, m.hidden)
        self._all_reduce()
        self._host("mlp", layer)
        self._kernel(kernels.RMS_NORM, nbytes=4 * activations)
        self._gemm(kernels.GATE_UP_GEMM, m.hidden, 2 * m.intermediate // tp)
        self._kernel(
            kernels.ACTIVATION,
            nbytes=2.0 * 3 * m.batch * m.intermediate / tp,
        )
        self._gemm(kernels.DOWN_GEMM, m.intermediate // tp, m.hidden)
        self._all_reduce()

    def sampling(self) -> None:
        m = self.model
        self._host("logits")
        self._gemm(kernels.LOGITS_GEMM, m.hidden, m.vocabulary // self.ranks)
        self._collective(
            kernels.ALL_GATHER,
            2.0 * m.batch * m.vocabulary / self.ranks,
        )
        self._host("sample")
        self._kernel(
            kernels.ARG_MAX,
            nbytes=2.0 * m.batch * m.vocabulary,
        )
        self._copy("Memcpy DtoH (Device -> Pinned)", m.batch * 8, _GAP_NS)
        self._add(
            Operation(
                "cudaStreamSynchronize",
                SpanKind.SYNC,
                COMPUTE_STREAM,
                "cudaStreamSynchronize",
                self._current,
            ),
            gap=_GAP_NS,
            own=_SETTLE_NS,
        )

    def program(self, resources: tuple[Resource, ...]) -> Program:
        shape = (len(resources), len(self.operations))

        def all_ranks(values: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            return np.tile(np.array(values, np.float64), (shape[0], 1))

        return Program(
            operations=tuple(self.operations),
            host_operations=tuple(self.hosts),
            resources=resources,
            present=np.ones(shape, np.bool_),
            start=np.zeros(shape[0]),
            gap=all_ranks(self.gaps),
            call=np.full(shape, _CALL_NS),
            latency=np.full(shape, _LAUNCH_LATENCY_NS),
            dispatch=np.full(shape, _DISPATCH_NS),
            own=all_ranks(self.owns),
            notes=("synthetic: a decode step from the model's architecture",),
        )

    @property
    def _current(self) -> int:
        return len(self.hosts) - 1

    def _host(self, name: str, parent: int = UNKNOWN) -> int:
        self.hosts.append(HostOperation(name, parent, lead_ns=1_000.0, tail_ns=500.0))
        return self._current

    def _add(self, operation: Operation, gap: float, own: float) -> None:
        self.operations.append(operation)
        self.gaps.append(gap)
        self.owns.append(own)

    def _kernel(
        self, name: str, *, nbytes: float, flop: float = 0.0, gap: float = _GAP_NS, grid: str = ""
    ) -> None:
        busy = max(nbytes / _HBM_BYTES_PER_NS, flop / _FLOP_PER_NS) / _EFFICIENCY
        shape = grid or f"{self.model.batch},1,1"
        self._add(
            Operation(
                name,
                SpanKind.KERNEL,
                COMPUTE_STREAM,
                "cudaLaunchKernel",
                self._current,
                grid=shape,
                block="256,1,1",
            ),
            gap=gap,
            own=_KERNEL_FLOOR_NS + busy,
        )

    def _gemm(self, name: str, inner: int, outer: int) -> None:
        self._kernel(
            name,
            nbytes=2.0 * (inner * outer + self.model.batch * (inner + outer)),
            flop=2.0 * self.model.batch * inner * outer,
            grid=f"{max(1, outer // 64)},1,1",
        )

    def _copy(self, name: str, nbytes: int, gap: float) -> None:
        self._add(
            Operation(
                name,
                SpanKind.MEMCPY,
                COMPUTE_STREAM,
                "cudaMemcpyAsync",
                self._current,
                nbytes=nbytes,
            ),
            gap=gap,
            own=1_200.0 + nbytes / 25.0,
        )

    def _all_reduce(self) -> None:
        self._collective(
            kernels.ALL_REDUCE,
            2.0 * self.model.batch * self.model.hidden,
        )

    def _collective(self, name: str, nbytes: float) -> None:
        self._add(
            Operation(
                name,
                SpanKind.COLLECTIVE,
                COMPUTE_STREAM,
                "cudaLaunchKernel",
                self._current,
                semantics=Semantics.BARRIER,
                group=MODEL_GROUP,
                grid="36,1,1",
                block="512,1,1",
                nbytes=int(nbytes),
            ),
            gap=_GAP_NS,
            own=_ALL_REDUCE_FLOOR_NS + nbytes / _NVLINK_BYTES_PER_NS,
        )
