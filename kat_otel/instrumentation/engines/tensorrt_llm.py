"""TensorRT-LLM with its PyTorch backend: a step is ``PyExecutor._forward_step``.

Its workers are MPI processes without a plugin point, so the wheel's ``.pth`` file puts the hooks
on (:mod:`kat_otel.instrumentation.start`). The executor's loops agree on whether there is a batch
before they run it, and with attention data parallelism pad a rank that has none, so the count is
alike on all ranks; the executor that only measures memory is counted on all of them too. The C++
backend runs no Python in a step: there the shim is loaded by ``CUDA_INJECTION64_PATH``.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from kat_otel.instrumentation.capture.records import StepFlag
from kat_otel.instrumentation.engines.hooks import Call, Hook
from kat_otel.instrumentation.identity.ranks import Who, current_device, from_environment
from kat_otel.instrumentation.session import Open, session
from kat_otel.spans import UNKNOWN

__all__ = ["HOOKS", "who"]


def who(executor: Any) -> Who:
    """Returns the ranks of an executor, from its mapping; what it lacks from the launcher."""
    mapping: Any = getattr(getattr(executor, "dist", None), "mapping", None)
    launched = from_environment(os.environ)

    def place(name: str, size: str) -> int:
        return int(getattr(mapping, name, UNKNOWN)) if getattr(mapping, size, 1) > 1 else UNKNOWN

    rank, world = int(getattr(mapping, "rank", -1)), int(getattr(mapping, "world_size", -1))
    known = 0 <= rank < world
    local = int(getattr(mapping, "local_rank", launched.local_rank))
    attention = bool(getattr(mapping, "enable_attention_dp", False))
    return Who(
        rank=rank if known else launched.rank,
        world_size=world if known else launched.world_size,
        local_rank=local,
        device=current_device(local),
        tp=place("tp_rank", "tp_size"),
        pp=place("pp_rank", "pp_size"),
        dp=place("tp_rank", "tp_size") if attention else UNKNOWN,
        ep=place("moe_ep_rank", "moe_ep_size"),
        engine="tensorrt_llm",
        version=str(getattr(sys.modules.get("tensorrt_llm"), "__version__", "")),
    )


def _count(requests: Any, name: str) -> int:
    said: Any = getattr(requests, name, None)
    return len(said) if said is not None else 0


def _flags(requests: Any) -> StepFlag:
    """Context requests are prefill, generation requests decode."""
    flags = StepFlag.NONE
    if _count(requests, "context_requests"):
        flags |= StepFlag.PREFILL
    if _count(requests, "generation_requests"):
        flags |= StepFlag.DECODE
    return flags


def _before_init(_call: Call) -> None:
    session().start()  # its warm-up captures the CUDA graphs


def _after_init(call: Call, _given: Any, _result: Any, failed: bool) -> None:
    if not failed:
        session().identify(lambda: who(call.instance))


def _before_step(call: Call) -> Open | None:
    flags = _flags(call.argument(0, "scheduled_requests"))
    return session().begin(flags, who=lambda: who(call.instance))


def _after_step(_call: Call, opened: Open | None, _result: Any, _failed: bool) -> None:
    session().end(opened)


_EXECUTOR: Final = "tensorrt_llm._torch.pyexecutor.py_executor"
HOOKS: Final = (
    Hook(_EXECUTOR, "PyExecutor.__init__", before=_before_init, after=_after_init),
    Hook(
        _EXECUTOR,
        "PyExecutor._forward_step",
        ("scheduled_requests",),
        _before_step,
        _after_step,
        counts=True,
    ),
)
