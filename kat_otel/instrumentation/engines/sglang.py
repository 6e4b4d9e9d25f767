"""SGLang: a step is ``Scheduler.run_batch``, in the scheduler's process of each GPU.

All ranks of a tensor- or pipeline-parallel group run the same batches in the same order, and
with data-parallel attention a rank without requests runs an idle batch beside the others'. A
prebuilt batch (decode side of a disaggregated pair) is a placeholder: it runs no forward pass, or
one idle batch through ``run_batch`` again, and that one is counted. Sampling that waits for a
grammar is launched after ``run_batch`` and belongs to no step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from kat_otel import semconv
from kat_otel.instrumentation.capture.records import StepFlag
from kat_otel.instrumentation.engines.hooks import Call, Hook
from kat_otel.instrumentation.engines.request_links import LINKS, parse_traceparent
from kat_otel.instrumentation.identity.ranks import Who, current_device
from kat_otel.instrumentation.identity.worker import Links
from kat_otel.instrumentation.session import Open, session
from kat_otel.spans import UNKNOWN

__all__ = ["CALLS", "HOOKS", "who"]

_PARALLEL: Final = "sglang.srt.distributed.parallel_state"


def _ask(module: str, name: str) -> Any:
    """Returns what a function of an imported module says; None where it cannot be asked."""
    get: Callable[[], Any] | None = getattr(sys.modules.get(module), name, None)
    if get is None:
        return None
    try:
        return get()
    except (AssertionError, AttributeError, ValueError):  # this layout has no such group
        return None


def _place(name: str) -> int:
    group = _ask(_PARALLEL, name)
    return UNKNOWN if group is None else int(group.rank_in_group)


def _attention_dp() -> int:
    said = _ask("sglang.srt.layers.dp_attention", "get_attention_dp_rank")
    if said is None:  # newer versions keep it with the rest of the layout
        said = getattr(_ask("sglang.srt.runtime_context", "get_parallel"), "attn_dp_rank", None)
    return UNKNOWN if said is None else int(said)


def who(runner: Any) -> Who:
    """Returns the ranks of a model runner (or scheduler) whose groups are initialised."""
    arguments: Any = runner.server_args
    world = _ask(_PARALLEL, "get_world_group")
    gpu = int(getattr(runner, "gpu_id", UNKNOWN))
    attention = bool(getattr(arguments, "enable_dp_attention", False))
    replica: Any = getattr(runner, "dp_rank", None)
    if replica is None:
        replica = getattr(_ask("sglang.srt.runtime_context", "get_parallel"), "dp_rank", None)
    experts = int(getattr(arguments, "ep_size", 1) or 1) > 1
    mode = str(getattr(arguments, "disaggregation_mode", "null"))
    attributes: dict[str, str | int] = {} if mode == "null" else {semconv.KV_ROLE: mode}
    return Who(
        rank=int(world.rank),
        world_size=int(world.world_size),
        local_rank=int(world.local_rank),
        device=current_device(gpu),
        tp=_place("get_tp_group"),
        pp=_place("get_pp_group"),
        dp=_attention_dp() if attention else UNKNOWN,
        ep=_place("get_moe_ep_group") if experts else UNKNOWN,
        engine="sglang",
        version=str(getattr(sys.modules.get("sglang"), "__version__", "")),
        model=str(getattr(arguments, "served_model_name", None) or arguments.model_path),
        replica=f"dp{replica}" if replica and not attention else "",
        attributes=attributes,
    )


def _flags(mode: Any) -> StepFlag:
    if mode.is_idle():
        return StepFlag.DUMMY
    flags = StepFlag.PREFILL if mode.is_extend() else StepFlag.NONE
    if mode.is_decode() or mode.is_mixed() or mode.is_target_verify():
        flags |= StepFlag.DECODE
    return flags


def _prebuilt(mode: Any) -> bool:
    ask: Callable[[], bool] | None = getattr(mode, "is_prebuilt", None)
    return ask is not None and ask()


def _before_groups(_call: Call) -> None:
    session().start()  # before NCCL's first NVTX range and the first CUDA graph


def _after_groups(call: Call, _given: Any, _result: Any, failed: bool) -> None:
    if not failed:
        session().identify(lambda: who(call.instance))


def _before_batch(call: Call) -> Open | None:
    batch: Any = call.argument(0, "batch")
    mode: Any = batch.forward_mode
    if _prebuilt(mode):
        return None
    opened = session().begin(_flags(mode), who=lambda: who(call.instance))
    if opened is not None and _place("get_tp_group") <= 0 and _place("get_pp_group") <= 0:
        spans = _links(batch.reqs)
        if spans:
            session().say(Links(opened.step, opened.micro, spans).encode())
    return opened


def _links(requests: Any) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], None] = {}
    for request in requests or ():
        context: Any = getattr(getattr(request, "time_stats", None), "trace_ctx", None)
        headers: Any = getattr(context, "external_trace_header", None)
        if headers is None:  # tracing is off, in all of them
            break
        pair = parse_traceparent(headers)
        if pair is not None:
            found[pair] = None
        if len(found) == LINKS:
            break
    return tuple(found)


def _after_batch(_call: Call, opened: Open | None, _result: Any, _failed: bool) -> None:
    session().end(opened)


HOOKS: Final = (
    Hook(
        "sglang.srt.model_executor.model_runner",
        "ModelRunner.init_torch_distributed",
        before=_before_groups,
        after=_after_groups,
    ),
    Hook(
        "sglang.srt.managers.scheduler",
        "Scheduler.run_batch",
        ("batch",),
        _before_batch,
        _after_batch,
        counts=True,
    ),
)

CALLS: Final = (
    *(Hook(_PARALLEL, f"get_{name}_group") for name in ("world", "tp", "pp", "moe_ep")),
    Hook("sglang.srt.layers.dp_attention", "get_attention_dp_rank", until="0.5.23"),
    *(
        Hook("sglang.srt.model_executor.forward_batch_info", f"ForwardMode.is_{name}")
        for name in ("idle", "extend", "decode", "mixed", "target_verify")
    ),
)
