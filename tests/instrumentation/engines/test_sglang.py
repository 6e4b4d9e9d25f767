"""SGLang's scheduler processes: every batch that runs is a step, placeholders are not."""

from __future__ import annotations

import textwrap

from kat_otel.instrumentation.capture.records import StepFlag
from tests.instrumentation.engines.programs import Programs

D, P, DUMMY = int(StepFlag.DECODE), int(StepFlag.PREFILL), int(StepFlag.DUMMY)

HEAD = """
from types import SimpleNamespace
from kat_otel.instrumentation.instrumentor import KatInstrumentor, ensure
from kat_otel.instrumentation.session import session
ensure()
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.model_executor.forward_batch_info import ForwardMode as Mode

def arguments(**more):
    usual = {"tp_size": 2, "pp_size": 1, "ep_size": 1, "model_path": "Qwen/Qwen3-8B",
        "served_model_name": None, "enable_dp_attention": False, "disaggregation_mode": "null"}
    return SimpleNamespace(**(usual | more))

def batch(mode, idle=None, headers=None):
    context = SimpleNamespace(external_trace_header=headers)
    requests = [SimpleNamespace(time_stats=SimpleNamespace(trace_ctx=context))]
    return SimpleNamespace(forward_mode=mode, inner_idle_batch=idle, reqs=requests)

def identified():
    assert session()._identifier.join(30)
"""


def test_ranks_and_identity_are_the_groups(programs: Programs) -> None:
    program = HEAD + textwrap.dedent(
        """
        scheduler = Scheduler(arguments(ep_size=2, disaggregation_mode="decode"), %d, %d)
        identified()
        scheduler.run_batch(batch(Mode.DECODE))
        """
    )
    done = programs.finish(
        [programs.start(program % (rank, rank), FAKE_DEVICE=str(rank)) for rank in range(2)]
    )
    assert done.code == 0, done.errors
    workers = sorted(done.said("worker"), key=lambda w: w["resource"]["rank"])
    assert [w["resource"]["rank"] for w in workers] == [0, 1]
    assert (
        [w["resource"]["tp"] for w in workers] == [w["resource"]["ep"] for w in workers] == [0, 1]
    )
    assert [w["resource"]["device"] for w in workers] == [0, 1]
    assert len({w["nonce"] for w in workers}) == 1
    attributes = workers[0]["resource"]["attributes"]
    assert attributes["kat.engine"] == "sglang"
    assert attributes["gen_ai.request.model"] == "Qwen/Qwen3-8B"
    assert attributes["kat.kv.role"] == "decode"


def test_kinds_of_batches(programs: Programs) -> None:
    done = programs.run(
        HEAD
        + textwrap.dedent(
            """
            scheduler = Scheduler(arguments(tp_size=1), 0, 0)
            for mode in (Mode.EXTEND, Mode.DECODE, Mode.MIXED, Mode.IDLE):
                scheduler.run_batch(batch(mode))
            """
        )
    )
    assert done.begun() == [(0, P), (1, D), (2, P | D), (3, DUMMY)]


def test_a_prebuilt_batch_is_no_step_but_the_idle_one_within_it_is(programs: Programs) -> None:
    done = programs.run(
        HEAD
        + textwrap.dedent(
            """
            scheduler = Scheduler(arguments(tp_size=1), 0, 0)
            assert scheduler.run_batch(batch(Mode.PREBUILT)) == "nothing"
            idle = batch(Mode.IDLE)
            assert scheduler.run_batch(batch=batch(Mode.PREBUILT, idle)) == "result"
            scheduler.run_batch(batch(Mode.DECODE))
            assert scheduler.forward_ct == 4    # the engine's own counter counts placeholders
            """
        )
    )
    assert done.begun() == [(0, DUMMY), (1, D)]


def test_steps_link_to_the_requests_they_work_for(programs: Programs) -> None:
    done = programs.run(
        HEAD
        + textwrap.dedent(
            """
            scheduler = Scheduler(arguments(tp_size=1), 0, 0)
            headers = {"traceparent": "00-" + "a" * 32 + "-" + "1" * 16 + "-01"}
            scheduler.run_batch(batch(Mode.EXTEND, headers=headers))
            scheduler.run_batch(batch(Mode.EXTEND, headers={}))
            """
        )
    )
    assert [(said["step"], said["spans"]) for said in done.said("links")] == [
        (0, [["a" * 32, "1" * 16]])
    ]


def test_replicas_are_told_apart_and_attention_ranks_are_not_replicas(programs: Programs) -> None:
    program = HEAD + textwrap.dedent(
        """
        from sglang.srt.runtime_context import parallel
        parallel.dp_rank, parallel.attn_dp_rank = 1, 1
        Scheduler(arguments(tp_size=1, enable_dp_attention=%s), 0, 0)
        identified()
        """
    )
    done = programs.run(program % "False", KAT_INSTANCE_ID="qwen")
    (worker,) = done.said("worker")
    assert (worker["resource"]["instance"], worker["resource"]["dp"]) == ("qwen/dp1", -1)
    done = programs.run(program % "True", KAT_INSTANCE_ID="qwen")
    worker = next(w for w in done.said("worker") if w["resource"]["dp"] != -1)
    assert (worker["resource"]["instance"], worker["resource"]["dp"]) == ("qwen", 1)
