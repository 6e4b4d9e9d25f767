"""vLLM, its V1 workers.

A step is ``Worker.execute_model``, up to the end of the ``sample_tokens`` that follows it where
the version has that. What makes the count alike on all ranks, from vLLM's sources:

- The ranks of a tensor- or pipeline-parallel group get every scheduler output, in one order.
- With data parallelism over experts, each engine core runs one forward pass per turn of its loop:
  a batch, or else ``execute_dummy_batch``. A scheduler output without tokens is no forward pass
  (``EngineCore.step`` says so by ``total_num_scheduled_tokens``), and a dummy batch follows it on
  that rank alone: so it is not counted.
- Warm-up calls ``execute_model`` on all ranks alike, and is counted on all.

Scheduler outputs carry no trace context. The engine core's process adds it to what it sends of a
new request (``NewRequestData``), and the worker keeps it until the request has finished.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from kat_otel import semconv
from kat_otel.instrumentation.capture.records import Edge, StepFlag
from kat_otel.instrumentation.engines import vllm_kv
from kat_otel.instrumentation.engines.hooks import Call, Hook
from kat_otel.instrumentation.engines.request_links import Requests, parse_traceparent
from kat_otel.instrumentation.identity.ranks import Who, current_device, torch_world
from kat_otel.instrumentation.identity.worker import Links
from kat_otel.instrumentation.session import Open, session
from kat_otel.spans import UNKNOWN

__all__ = ["CALLS", "HOOKS", "who"]

TRACE: Final = "kat_otel_trace"
"""Attribute that the engine core's process adds to NewRequestData: (trace id, span id)."""

_PARALLEL: Final = "vllm.distributed.parallel_state"


class _State:
    """Of a worker process: what goes from one hook to the next."""

    def __init__(self) -> None:
        self.requests = Requests()
        self.sampling: Open | None = None  # execute_model returned; sample_tokens ends the step
        self.says_links: bool | None = None  # one rank of each model replica is enough


_state: Final = _State()

# --- who -----------------------------------------------------------------------------------


def _group(name: str) -> Any:
    get = getattr(sys.modules.get(_PARALLEL), name, None)
    if get is None:
        return None
    try:
        return get()
    except (AssertionError, ValueError):  # this layout has no such group
        return None


def _place(name: str) -> int:
    group = _group(name)
    return UNKNOWN if group is None else int(group.rank_in_group)


def who(worker: Any) -> Who:
    """Returns the ranks of a worker whose device is initialised."""
    config: Any = worker.vllm_config
    parallel: Any = config.parallel_config
    world = _group("get_world_group")
    rank, size = int(world.rank), int(world.world_size)
    if (torch := torch_world()) is not None and torch[1] != size:
        rank, size = torch  # elastic: the group spans more than the store that we share
    experts = bool(getattr(parallel, "enable_expert_parallel", False))
    index = int(getattr(parallel, "data_parallel_index", 0) or 0)
    separate = int(getattr(parallel, "data_parallel_size", 1)) == 1  # replicas share nothing
    local = int(worker.local_rank)
    attributes: dict[str, str | int] = {}
    transfer: Any = getattr(config, "kv_transfer_config", None)
    if transfer is not None:
        attributes[semconv.KV_ENGINE_ID] = str(transfer.engine_id)
        attributes[semconv.KV_ROLE] = str(transfer.kv_role)
    return Who(
        rank=rank,
        world_size=size,
        local_rank=local,
        device=current_device(local),
        tp=_place("get_tp_group"),
        pp=_place("get_pp_group"),
        dp=_place("get_dp_group"),
        ep=_place("get_ep_group") if experts else UNKNOWN,
        engine="vllm",
        version=str(getattr(sys.modules.get("vllm"), "__version__", "")),
        model=str(config.model_config.model),
        replica=f"dp{index}" if separate and index else "",
        attributes=attributes,
    )


# --- steps ---------------------------------------------------------------------------------


def _flags(output: Any) -> StepFlag:
    """Prefill where a request has no output token yet, decode where one has."""
    flags = StepFlag.PREFILL if output.scheduled_new_reqs else StepFlag.NONE
    cached: Any = output.scheduled_cached_reqs
    running = len(cached.req_ids)
    outputs: Any = getattr(cached, "num_output_tokens", None)
    if outputs is not None:
        begun = running - outputs.count(0)
    else:  # older: more than one token that is not a guess is a piece of a prompt
        tokens, guesses = output.num_scheduled_tokens, output.scheduled_spec_decode_tokens
        begun = sum(1 for r in cached.req_ids if tokens[r] == 1 or r in guesses)
    if begun < running:
        flags |= StepFlag.PREFILL
    return flags | StepFlag.DECODE if begun else flags


def _close_sampling() -> None:
    opened, _state.sampling = _state.sampling, None
    session().end(opened)


def _before_device(_call: Call) -> None:
    session().start()  # before NCCL's first NVTX range and the first CUDA graph


def _after_device(call: Call, _given: Any, _result: Any, failed: bool) -> None:
    if not failed:
        session().identify(lambda: who(call.instance))


def _before_execute(call: Call) -> Open | None:
    return _begin(call.instance, call.argument(0, "scheduler_output"))


def _before_ray(call: Call) -> Open | None:
    """Ray's compiled graphs call the model runner past ``Worker``, and sample in the same call."""
    given: Any = call.argument(0, "execute_model_input") or call.argument(0, "scheduler_output")
    return _begin(call.instance.worker, given[0] if isinstance(given, tuple) else given)


def _after_ray(_call: Call, opened: Open | None, _result: Any, _failed: bool) -> None:
    vllm_kv.say()
    session().end(opened)


def _begin(worker: Any, output: Any) -> Open | None:
    _close_sampling()
    for new in output.scheduled_new_reqs:
        _state.requests.add(new.req_id, getattr(new, TRACE, None))
    if len(_state.requests) and output.finished_req_ids:
        _state.requests.forget(output.finished_req_ids)
    if output.total_num_scheduled_tokens <= 0:
        return None
    vllm_kv.watch()
    opened = session().begin(_flags(output), who=lambda: who(worker))
    if opened is not None and len(_state.requests) and _says_links():
        spans = _state.requests.of(output.num_scheduled_tokens)
        if spans:
            session().say(Links(opened.step, opened.micro, spans).encode())
    return opened


def _says_links() -> bool:
    if _state.says_links is None:
        _state.says_links = _place("get_tp_group") <= 0 and _place("get_pp_group") <= 0
    return _state.says_links


def _after_execute(call: Call, opened: Open | None, result: Any, failed: bool) -> None:
    vllm_kv.say()
    if result is None and not failed and hasattr(call.instance, "sample_tokens"):
        _state.sampling = opened
    else:
        session().end(opened)


def _after_sampling(_call: Call, _given: Any, _result: Any, _failed: bool) -> None:
    _close_sampling()


def _before_dummy(call: Call) -> Open | None:
    _close_sampling()
    return session().begin(StepFlag.DUMMY, who=lambda: who(call.instance))


def _after_dummy(_call: Call, opened: Open | None, _result: Any, _failed: bool) -> None:
    session().end(opened)


def _micro(call: Call) -> int:
    return int(call.instance.id) + 1  # 0 is the whole step, on the thread that runs it


def _entered(call: Call, _given: Any, _result: Any, failed: bool) -> None:
    if not failed:
        session().part(_micro(call), Edge.BEGIN)


def _before_leaving(call: Call) -> None:
    session().part(_micro(call), Edge.END)


# --- in the engine core's process ------------------------------------------------------------


def _after_new_request(call: Call, _given: Any, result: Any, failed: bool) -> None:
    if failed:
        return
    pair = parse_traceparent(getattr(call.argument(0, "request"), "trace_headers", None))
    if pair is not None:
        setattr(result, TRACE, pair)


_OUTPUT: Final = "vllm.v1.core.sched.output"
_WORKER: Final = "vllm.v1.worker.gpu_worker"
HOOKS: Final = (
    Hook(_WORKER, "Worker.init_device", before=_before_device, after=_after_device),
    Hook(
        _WORKER,
        "Worker.execute_model",
        ("scheduler_output",),
        _before_execute,
        _after_execute,
        counts=True,
    ),
    Hook(
        "vllm.executor.ray_utils",
        "RayWorkerWrapper.execute_model_ray",
        ("scheduler_output",),
        _before_ray,
        _after_ray,
        until="0.12.0",
        counts=True,
    ),
    Hook(
        "vllm.v1.executor.ray_utils",
        "RayWorkerWrapper.execute_model_ray",
        ("execute_model_input",),
        _before_ray,
        _after_ray,
        since="0.12.0",
        until="0.33.0",
        counts=True,
    ),
    Hook(_WORKER, "Worker.sample_tokens", after=_after_sampling, since="0.11.1", counts=True),
    Hook(
        _WORKER, "Worker.execute_dummy_batch", before=_before_dummy, after=_after_dummy, counts=True
    ),
    Hook(
        _OUTPUT,
        "NewRequestData.from_request",
        ("request",),
        after=_after_new_request,
    ),
    Hook("vllm.v1.worker.ubatching", "UBatchContext.__enter__", after=_entered, since="0.11.0"),
    Hook(
        "vllm.v1.worker.ubatching",
        "UBatchContext.__exit__",
        before=_before_leaving,
        since="0.11.0",
    ),
)

CALLS: Final = (
    *(Hook(_PARALLEL, f"get_{name}_group") for name in ("world", "tp", "pp", "dp", "ep")),
    *(
        Hook(_OUTPUT, name)
        for name in (
            "NewRequestData.req_id",
            "CachedRequestData.req_ids",
            "SchedulerOutput.scheduled_new_reqs",
            "SchedulerOutput.scheduled_cached_reqs",
            "SchedulerOutput.num_scheduled_tokens",
            "SchedulerOutput.total_num_scheduled_tokens",
            "SchedulerOutput.scheduled_spec_decode_tokens",
            "SchedulerOutput.finished_req_ids",
        )
    ),
    *vllm_kv.CALLS,
)
